"""`meshhost schedule` and `meshhost hook`: what starts work in rooms from outside."""
