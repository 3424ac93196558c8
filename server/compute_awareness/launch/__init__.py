"""Task files for engines that start runs elsewhere: written here, checked by them, started by the user."""
