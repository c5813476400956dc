"""Into the trainers: one module each, over `common`. None has rollout logic of its own, and nothing else imports them."""
