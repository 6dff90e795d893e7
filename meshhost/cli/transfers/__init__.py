"""What commands move between this machine and a server: files of rooms, and archives of tenants and rooms."""
