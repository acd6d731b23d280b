//! Answers of any size, as streams of messages that are made as they are read.
//!
//! Whoever polls the stream has the next message made: hits that are there already go into it, and where there are
//! none, the next search is a job like that of any call. HTTP/2 flow control polls no further than the client reads, so
//! nothing is searched ahead, and the permit of the last search is back before its hits are sent.

use futures_util::{StreamExt as _, stream};
use megaring_core::Error;
use megaring_core::rescore::Ranked;
use megaring_core::search::Search;
use megaring_engine::long_search::{Found, LongSearch};
use megaring_engine::{Made, Outcome, Terms};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::compute::bounded;
use super::{Caller, LIGHT_BYTES, Service, blocking};
use crate::call::{LongCall, Telling};
use crate::error::{answered, came_to, status};
use crate::reply::made;
use crate::reply_limit::ReplyLimit;
use crate::validate;

/// A call under way.
struct Answer<T: Telling> {
    service: Service,
    terms: Terms,
    work: Work<T>,
}

/// What of it takes its time, and runs on threads for blocking work.
struct Work<T: Telling> {
    search: LongSearch,
    telling: T,
    limit: ReplyLimit,
    /// Hits of which so many are told.
    found: Option<(Found, usize)>,
    /// How they were made, until it is told.
    made: Option<Made>,
    /// The query or row that is told next, and what it was when a message was sent last, if one was.
    next: u32,
    told: u32,
    is_begun: bool,
}

/// What is to be done.
enum Step<M> {
    Send(M),
    Search(Search),
    End,
}

impl Service {
    /// Validates a call, and replies by a stream. Up to its first message it fails as other calls do.
    pub(super) async fn long_search<C: LongCall>(
        &self,
        request: Request<C>,
    ) -> Result<Response<BoxStream<<C::Telling as Telling>::Message>>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let begin = async {
            let answer = self.begin(caller, request.into_inner()).await?;
            answer.next().await
        };
        let first = answered(begin).await?;
        let (first, rest) = first.unzip();
        let rest = stream::unfold(rest, |answer| async {
            let answer = answer?;
            let told = answer.work.told;
            match answered(bounded(answer.terms.deadline, answer.next())).await {
                Ok(next) => next.map(|(message, answer)| (Ok(message), Some(answer))),
                Err(end) => Some((Err(came_to(end, C::Telling::NEXT, told)), None)),
            }
        });
        Ok(Response::new(stream::iter(first.map(Ok)).chain(rest).boxed()))
    }

    async fn begin<C: LongCall>(&self, caller: Caller, mut call: C) -> Result<Answer<C::Telling>, Error> {
        let (engine, limit) = (self.engine.clone(), self.settings.reply_limit);
        let backend = validate::backend(call.backend())?;
        let terms = caller.terms(backend, None);
        let filter = call.take_filter();
        let corpus = self.named(call.corpus().to_owned(), filter, call.prefix_dim(), &terms).await?;
        let work = blocking(move || {
            let (asked, telling) = call.validate(corpus, engine.store(), limit)?;
            let next = asked.of.numbers().start;
            let search = LongSearch::new(asked, &engine)?;
            Ok(Work { search, telling, limit, found: None, made: None, next, told: next, is_begun: false })
        });
        Ok(Answer { service: self.clone(), terms, work: work.await? })
    }
}

impl<T: Telling> Answer<T> {
    /// The next message, and what is left; `None` at the end.
    async fn next(self) -> Result<Option<(T::Message, Self)>, Error> {
        let Self { service, terms, mut work } = self;
        service.refuse_if_draining()?;
        let mut outcome = None;
        loop {
            let step = blocking(move || {
                let step = work.step(outcome)?;
                Ok((work, step))
            });
            let search;
            (work, search) = match step.await? {
                (work, Step::Send(message)) => return Ok(Some((message, Self { service, terms, work }))),
                (work, Step::Search(search)) => (work, search),
                (_, Step::End) => return Ok(None),
            };
            outcome = match service.engine.run_batched(search, terms.clone()).await {
                // A client cannot ask again for the rest as it can for the whole.
                Err(Error::Exhausted { retry_after, .. }) if work.is_begun => {
                    tokio::time::sleep(retry_after).await;
                    None
                }
                answered => Some(answered?),
            };
        }
    }
}

impl<T: Telling> Work<T> {
    /// What to do next, given what the last search came to, if there was one.
    fn step(&mut self, outcome: Option<Outcome<Vec<Ranked>>>) -> Result<Step<T::Message>, Error> {
        if let Some(Outcome { answer, made }) = outcome {
            self.search.answer(answer);
            self.made = Some(made.after(self.made.take()));
        }
        let mut message = T::Message::default();
        if self.fill(&mut message) == 0 && self.next == self.told {
            if let Some(search) = self.search.search() {
                return Ok(Step::Search(search));
            }
            // A client of which nothing is found gets one message all the same, with the version.
            if self.is_begun {
                return Ok(Step::End);
            }
        }
        (self.told, self.is_begun) = (self.next, true);
        self.telling.close(&mut message, self.made.take().map(made), self.next);
        self.limit.check(T::TOO_LARGE, message).map(Step::Send)
    }

    /// Tells what is found, as far as there is room. The bytes that it takes at most.
    fn fill(&mut self, message: &mut T::Message) -> usize {
        let room = LIGHT_BYTES.min(self.limit.0 / 2);
        let mut bytes = 0;
        while let Some((found, from)) = self.found.take().or_else(|| Some((self.search.found()?, 0))) {
            let (mut to, mut part) = (from, T::PART_BYTES);
            while let Some(hit) = found.hits.get(to) {
                let more = part + self.telling.bytes(found.query, hit);
                // One hit goes into a message, however large it is.
                if bytes + more > room && (bytes > 0 || to > from) {
                    break;
                }
                (to, part) = (to + 1, more);
            }
            let is_whole = to == found.hits.len();
            if to > from || is_whole {
                let is_last = found.is_last && is_whole;
                self.telling.add(message, found.query, &found.hits[from..to], is_last);
                self.next = found.query + u32::from(is_last);
                bytes += part;
            }
            if !is_whole {
                self.found = Some((found, to));
            }
            if !is_whole || bytes >= room {
                break;
            }
        }
        bytes
    }
}
