"""PostgreSQL, the truth: tables, the slide's states, results, alerts, migrations, reporting."""
