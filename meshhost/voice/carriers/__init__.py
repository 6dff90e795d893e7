"""The ways in which sound travels, one module each. `meshhost.voice.carrier` says what they have in common."""
