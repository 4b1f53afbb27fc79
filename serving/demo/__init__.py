"""The main job: one stream of help-desk questions, through the assistant without costkit and with it."""
