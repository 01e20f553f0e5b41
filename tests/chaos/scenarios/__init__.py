"""What is broken, and when. Each scenario leaves its field with every server healthy and a worker running."""
