//! What a run of `megaring bench` measured: the record that is written as JSON, where one backend begins to win, and
//! the report that shows it. The measuring itself is [`megaring_engine::measure`].

pub mod crossover;
pub mod record;
pub mod report;
