//! Who lies, floods and forges gets nothing, and nobody else is harmed by it.
