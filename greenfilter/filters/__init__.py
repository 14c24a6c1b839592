"""Stock filters: run one by its name, as in ``greenfilter run rbl --zone zen.example.org``."""
