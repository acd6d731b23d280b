//! `rpc Encode`.

use megaring_core::encode::profile::Profile;
use megaring_core::encode::{Encode, Encoded, Features};
use megaring_core::texts::Texts;
use megaring_core::{Answered, Error};
use megaring_engine::{Engine, Outcome};
use megaring_proto::v1 as pb;

use super::{Call, Named, Validated};
use crate::reply::made;
use crate::reply_limit::ReplyLimit;
use crate::validate::not_finite_field;

/// Bytes of an encoded memory in a reply: five coordinates and a zone.
const REPLY_BYTES: usize = 41;
/// And of its mask.
const MASK_BYTES: usize = 16;

impl Call for pb::EncodeRequest {
    type Operation = Encode;
    type Response = pb::EncodeResponse;

    fn corpus(&self) -> Option<&str> {
        None
    }

    fn backend(&self) -> i32 {
        self.backend
    }

    fn payload_bytes(&self) -> usize {
        self.memories.iter().map(|memory| size_of::<pb::Memory>() + memory.content.len()).sum()
    }

    fn validate(self, _: Option<Named>, limit: ReplyLimit) -> Result<Validated<Self>, Error> {
        let (count, masks) = (self.memories.len(), self.with_masks);
        limit.ensure(Encode::ITEMS, count, 1, if masks { REPLY_BYTES + MASK_BYTES } else { REPLY_BYTES })?;
        let mut texts = Texts::default();
        texts.offsets.reserve(count + 1);
        texts.bytes.reserve(self.memories.iter().map(|memory| memory.content.len()).sum());
        let mut features = Vec::with_capacity(count);
        let mut gardens = Vec::with_capacity(count);
        for (index, memory) in self.memories.into_iter().enumerate() {
            features.push(numbers(index, &memory)?);
            texts.push(&memory.content);
            gardens.push(memory.garden);
        }
        let job = Encode { texts, features, gardens };
        let reply = move |outcome, engine: &Engine| Ok(reply(outcome, engine.profile(), masks));
        Ok(Validated { job, reply_bytes: count * (REPLY_BYTES + MASK_BYTES), reply: Box::new(reply) })
    }
}

fn numbers(index: usize, memory: &pb::Memory) -> Result<Features, Error> {
    let finite = |field: &str, value: f64| {
        if value.is_finite() { Ok(value) } else { Err(not_finite_field(&format!("memories[{index}].{field}"), value)) }
    };
    Ok(Features {
        importance: finite("importance", memory.importance)?,
        access_count: memory.access_count,
        age_days: finite("age_days", memory.age_days)?,
        galactic_distance: finite("galactic_distance", memory.galactic_distance)?,
    })
}

fn reply(outcome: Outcome<Vec<Encoded>>, profile: &Profile, masks: bool) -> pb::EncodeResponse {
    let encoded = outcome.answer;
    let mut response = pb::EncodeResponse {
        coordinates: encoded.iter().flat_map(|encoded| encoded.coordinates).collect(),
        zones: encoded.iter().map(|encoded| encoded.zone as u32).collect(),
        profile: profile.name().into(),
        made: Some(made(outcome.made)),
        ..pb::EncodeResponse::default()
    };
    if masks {
        let bytes: Vec<u8> = encoded.iter().flat_map(|encoded| encoded.mask.to_le_bytes()).collect();
        response.masks = bytes.into();
        response.words = profile.words().to_vec();
    }
    response
}
