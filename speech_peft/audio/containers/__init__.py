"""Files of sound: opened, decoded, and put where their time stamps say."""
