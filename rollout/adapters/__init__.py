"""Into the trainers: one module each, over `common` and `worker`. None has rollout logic of its own; nothing else imports them."""
