"""Model providers that the gateway can forward to."""
