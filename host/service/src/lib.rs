//! The service: validate, admit, route, submit, consume, reap, rescore, reply; and the command line
