//! Jobs of any operation, for lists of mixed ones.

use std::sync::Arc;

use megaring_core::operation::{Exact, Piece};
use megaring_core::{Answered, Error, Operation};
use megaring_engine::{Engine, Outcome, Terms};

macro_rules! any {
    ($($number:literal $module:ident::$operation:ident,)*) => {
        /// A job.
        #[derive(Clone)]
        pub enum Job {
            $(#[doc = concat!("See [`megaring_core::", stringify!($module), "`].")]
            $operation(megaring_core::$module::$operation),)*
        }

        /// An answer.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Answer {
            $(#[doc = concat!("See [`megaring_core::", stringify!($module), "`].")]
            $operation(<megaring_core::$module::$operation as Answered>::Answer),)*
        }

        $(impl From<megaring_core::$module::$operation> for Job {
            fn from(job: megaring_core::$module::$operation) -> Self {
                Self::$operation(job)
            }
        })*

        impl Job {
            /// As the middle of the service knows it.
            #[must_use]
            pub fn operation(&self) -> &dyn Operation {
                match self { $(Self::$operation(job) => job,)* }
            }

            /// Does it on the calling thread's time.
            ///
            /// # Errors
            /// As [`Engine::run_blocking`].
            pub fn run(self, engine: &Arc<Engine>, terms: Terms) -> Result<Outcome<Answer>, Error> {
                match self {
                    $(Self::$operation(job) => engine.run_blocking(job, terms).map(|Outcome { answer, made }| {
                        Outcome { answer: Answer::$operation(answer), made }
                    }),)*
                }
            }

            /// Makes the exact answer of a piece.
            ///
            /// # Errors
            /// As [`Answered::finish`].
            pub fn finish(&self, piece: &Piece, result: &[u8], by: &Exact<'_>) -> Result<Answer, Error> {
                match self {
                    $(Self::$operation(job) => {
                        let mut answer = Default::default();
                        job.finish(piece, result, by, &mut answer).map(|_| Answer::$operation(answer))
                    })*
                }
            }
        }
    };
}

megaring_core::operations!(any);
