"""The only outgoing HTTP: what we ask Wix, with which credential, and how fast."""
