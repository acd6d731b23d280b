//! Import (under way).
