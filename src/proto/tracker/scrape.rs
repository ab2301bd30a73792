//! Scrape (BEP 48, and BEP 15's action 2).
