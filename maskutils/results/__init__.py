"""What records say: tables, statistics, claims, choices and figures. It knows tables and imports no torch."""
