//! Corpora: Arrow IPC segments mapped in place, derived columns, import, manifest
