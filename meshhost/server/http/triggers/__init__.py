"""REST for what starts work from outside: messages, schedules, and the hooks that foreign services post to."""
