//! How the service is, in seven numbers.

/// A field of [`Health`]: its name, and how it comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name, with its unit where it has one.
    pub name: &'static str,
    /// The rule, in words.
    pub rule: &'static str,
}

/// Makes the struct and the table of one list.
macro_rules! health {
    ($($name:ident: $rule:literal,)*) => {
        /// How the service has been lately. Where nothing happened, and where nothing is known, a field is 0.
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        pub struct Health { $(#[doc = $rule] pub $name: f64,)* }

        /// The fields, in their order on the board.
        pub const FIELDS: [Field; 7] = [$(Field { name: stringify!($name), rule: $rule }),*];

        impl Health {
            /// As numbers, in the order of [`FIELDS`].
            #[must_use]
            pub fn values(&self) -> [f64; FIELDS.len()] {
                [$(self.$name),*]
            }
        }

        impl From<[f64; FIELDS.len()]> for Health {
            fn from([$($name),*]: [f64; FIELDS.len()]) -> Self {
                Self { $($name),* }
            }
        }
    };
}

health! {
    utilisation: "jobs under way on the mean of the last second, by the processors there are; 1 at most",
    jobs_per_second: "jobs answered in the last second",
    p99_seconds: "what 99 of 100 jobs of the last second took at most, from admission to answer; to a quarter of it",
    error_rate: "jobs that failed or were turned away, by all that came in the last second; 0 to 1",
    memory_pressure: "memory that is not available, by all that this machine has or this process is allowed; 0 to 1",
    backlog: "jobs that wait in line, by the places there are; 0 to 1",
    budget_pressure: "the largest share that a tenant has spent of a budget; 0 to 1",
}
