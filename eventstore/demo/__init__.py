"""The demo: the main job on the embedded stack, with 39,244 real Wikipedia edits."""
