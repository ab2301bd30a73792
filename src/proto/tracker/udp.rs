//! UDP trackers (BEP 15, 41): packets, both directions.
