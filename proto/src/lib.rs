//! The wire: megaring.v1 messages and services, and the descriptor set for reflection
