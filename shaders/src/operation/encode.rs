//! Encode: every byte of all texts through the automaton, in runs of equal length.
//!
//! The shader finds what [`Automaton::mask`] finds: it goes by the same tables, and after [`Automaton::warm_up`] bytes
//! the state does not depend on where reading began. A run is short enough that one slot's text keeps a GPU busy, and
//! long enough that its warm-up is the smaller part of the reading.

use bytemuck::{Pod, Zeroable};
use megaring_core::encode::keyword::Automaton;
use megaring_ring::Status;

use super::texts::Texts;
use super::{Delivery, Handler, Operation, Part, same_layout};
use crate::gpu::{Gpu, OutOfMemory};
use crate::plan::{Context, Inputs, Planned, Source};
use crate::script::{Script, Sizes};
use crate::self_test::Trial;
use crate::stage::Stage;
use crate::trial::bind;

pub(crate) const HANDLER: Handler = Handler { plan, self_test };

/// Bytes of a run; more where a dispatch could not have as many runs.
const RUN_BYTES: u32 = 64;
/// Work of a byte, which is three loads that wait for one another.
const BYTE_WORK: u64 = 32;
/// Invocations of a workgroup.
const WORKGROUP: u32 = 64;
/// Workgroups that a dispatch may have.
const MOST_WORKGROUPS: u32 = 65_535;
const MASK_BYTES: usize = size_of::<u128>();

/// Twin of the shader's.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EncodeParams {
    texts: u32,
    text_bytes: u32,
    run: u32,
    runs: u32,
    warm_up: u32,
    shift: u32,
    first_accepting: u32,
    unused: u32,
}

same_layout!(encode_params: EncodeParams { texts, text_bytes, run, runs, warm_up, shift, first_accepting, unused });

/// An automaton on the device.
pub(crate) struct DeviceAutomaton {
    part: Part,
    shape: AutomatonShape,
}

/// What the shader must know of an automaton beside its tables.
#[derive(Debug, Clone, Copy)]
struct AutomatonShape {
    warm_up: u32,
    shift: u32,
    first_accepting: u32,
}

impl DeviceAutomaton {
    /// Uploads an automaton's tables. Takes a while; do it once.
    ///
    /// # Errors
    /// The device has no room.
    pub(crate) fn new(gpu: &Gpu, automaton: &Automaton) -> Result<Self, OutOfMemory> {
        let (rows, columns) = tables(automaton);
        let part = Part { binding: bind(gpu, &rows, &columns)?, rows: 0..0 };
        Ok(Self { part, shape: AutomatonShape::of(automaton) })
    }
}

impl AutomatonShape {
    fn of(automaton: &Automaton) -> Self {
        Self {
            warm_up: automaton.warm_up() as u32,
            shift: automaton.shift(),
            first_accepting: u32::from(automaton.first_accepting()),
        }
    }
}

/// The two buffers of its part: the transitions, two to a word; then the classes of the 256 bytes and each accepting
/// state's words.
fn tables(automaton: &Automaton) -> (Vec<u8>, Vec<u8>) {
    let mut columns = automaton.class_of().to_vec();
    columns.extend(automaton.accept().iter().flat_map(|words| words.to_le_bytes()));
    (automaton.next().iter().flat_map(|state| state.to_le_bytes()).collect(), columns)
}

/// Bytes of a run, and the number of runs.
fn runs_of(text_bytes: u32) -> (u32, u32) {
    let run = text_bytes.div_ceil(MOST_WORKGROUPS * WORKGROUP).next_multiple_of(4).max(RUN_BYTES);
    (run, text_bytes.div_ceil(run))
}

fn plan<'a>(inputs: &Inputs<'a>, context: &Context<'_>) -> Result<Planned<'a>, Status> {
    let texts = Texts::of(inputs)?;
    inputs.check_room(MASK_BYTES)?;
    let automaton = &context.resources.automaton;
    let encode = Encode { texts, automaton: automaton.shape };
    Ok(Planned::new(encode, Source::Parts(vec![automaton.part.clone()])))
}

fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    // A word that lies in two runs, and nowhere else in its text.
    let cut = " ".repeat(RUN_BYTES as usize - 3) + "wisdom";
    let words = "Love, wisdom \u{212A}nowledge; ELEGANCE and a garden. ".repeat(40);
    let each = [&cut[..], &words, "", &words[3..], "love", &words[..255], "\u{0130}"];
    let mut texts = megaring_core::texts::Texts::default();
    each.iter().for_each(|text| texts.push(text));
    let automaton = DeviceAutomaton::new(trial.gpu, trial.automaton).map_err(|full| full.to_string())?;
    let refused = |status| format!("the job was refused: {status:?}");
    let texts = Texts::new(&texts.offsets, &texts.bytes).map_err(refused)?;
    let mut job = Encode { texts, automaton: automaton.shape };
    let found = trial.run(&mut job, &[automaton.part], each.len() * MASK_BYTES)?;
    let want = each.iter().flat_map(|text| trial.automaton.mask(text.as_bytes()).to_le_bytes());
    if found.iter().copied().eq(want) { Ok(()) } else { Err("masks differ from the definition".into()) }
}

/// A job.
struct Encode<'a> {
    texts: Texts<'a>,
    automaton: AutomatonShape,
}

impl Encode<'_> {
    fn params(&self) -> EncodeParams {
        let text_bytes = self.texts.bytes();
        let (run, runs) = runs_of(text_bytes);
        EncodeParams {
            texts: self.texts.len() as u32,
            text_bytes,
            run,
            runs,
            warm_up: self.automaton.warm_up,
            shift: self.automaton.shift,
            first_accepting: self.automaton.first_accepting,
            unused: 0,
        }
    }
}

impl Operation for Encode<'_> {
    fn sizes(&self) -> Sizes {
        Sizes { input: self.texts.input(), scratch: 0, output: self.texts.len() * MASK_BYTES }
    }

    fn fill(&self, input: &mut [u8]) {
        self.texts.fill(input);
    }

    /// `parts` is the automaton alone.
    fn round(&mut self, parts: &[Part], _first: bool) -> Script {
        let mut script = Script::default();
        script.clear_output(0..self.texts.len() * MASK_BYTES);
        let params = self.params();
        let automaton = parts.first().map(|part| &part.binding);
        let work = BYTE_WORK * u64::from(params.text_bytes);
        script.dispatch(Stage::Encode, automaton, &params, [params.runs.div_ceil(WORKGROUP), 1, 1], work);
        script
    }

    fn delivery(&self) -> Delivery {
        Box::new(|output, result| result[..output.len()].copy_from_slice(output))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use megaring_core::encode::profile::{DEFAULT, Profile};
    use proptest::collection::vec;
    use proptest::sample::select;
    use proptest::strategy::Strategy;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;
    use crate::script::Step;
    use crate::testing::{self, gpus};

    fn default_profile() -> Profile {
        Profile::parse(DEFAULT).expect("the default profile")
    }

    fn automaton_of(words: &[String]) -> Automaton {
        let text = format!(
            "name = \"any\"\n[poles]\nlogic = {words:?}\nemotion = []\nmicro = []\nmacro = []\n[gardens]\n\
             [elements]\nearth = [0.0, 0.0, 0.0, 1.0, 1.0]\n"
        );
        Automaton::new(&Profile::parse(&text).expect("a small profile"))
    }

    /// Has the device find the texts' masks and compares each with the automaton's.
    fn check<T: AsRef<[u8]>>(gpu: &Gpu, automaton: &Automaton, texts: &[T]) {
        let mut all = megaring_core::texts::Texts { offsets: vec![0], bytes: Vec::new() };
        texts.iter().for_each(|text| all.push(text));
        let DeviceAutomaton { part, shape } = DeviceAutomaton::new(gpu, automaton).expect("little memory");
        let mut job = Encode { texts: Texts::new(&all.offsets, &all.bytes).expect("offsets rise"), automaton: shape };
        let result = testing::run(gpu, &mut job, &[vec![part]], texts.len() * MASK_BYTES);
        let found: Vec<u128> = result.chunks_exact(MASK_BYTES).map(bytemuck::pod_read_unaligned).collect();
        assert_eq!(found.len(), texts.len());
        for (at, (found, text)) in found.iter().zip(texts).enumerate() {
            let text = text.as_ref();
            let shown = String::from_utf8_lossy(&text[..text.len().min(200)]);
            assert_eq!(*found, automaton.mask(text), "{}: text {at} of {}: {shown:?}", gpu.name, texts.len());
        }
    }

    /// Bytes that look like words at a glance: pieces of the profile's words without their ends.
    fn near_words(len: usize) -> Vec<u8> {
        let profile = default_profile();
        let pieces = profile.words().iter().flat_map(|word| word.as_bytes()[..word.len() - 1].iter().copied());
        pieces.cycle().take(len).collect()
    }

    #[test]
    fn a_word_is_found_wherever_runs_cut_it() {
        let profile = default_profile();
        let automaton = Automaton::new(&profile);
        let longest = automaton.warm_up();
        // One more than two runs, so every text lies one byte further on in its run than the one before.
        let len = 2 * RUN_BYTES as usize + 1;
        let spelled =
            profile.words().iter().flat_map(|word| [word.clone(), word.to_uppercase(), word.replace('k', "\u{212A}")]);
        let texts = spelled.flat_map(|word| {
            let text = [near_words(longest), word.into_bytes(), near_words(len)].concat();
            std::iter::repeat_n(text[..len].to_vec(), RUN_BYTES as usize)
        });
        let texts: Vec<_> = texts.collect();
        for gpu in gpus() {
            check(gpu, &automaton, &texts);
        }
    }

    #[test]
    fn texts_of_any_length_keep_their_words_to_themselves() {
        let automaton = testing::automaton();
        let words =
            "A Vision of the \u{212A}ernel; growth, algorithms. str\u{130}ng b\u{130}t to\u{212A}en STAC\u{212A} "
                .repeat(40_000);
        let words = words.as_bytes();
        let none: [&[u8]; 0] = [];
        // A word whose halves lie in two texts is in neither.
        let halves: [&[u8]; 5] = [b"algo", b"rithm", b"", b"al", b"gorithm"];
        let long: [&[u8]; 6] = [b"", &words[..1_000_003], b"", b"", &words[7..2_500_000], b""];
        let singles: Vec<&[u8]> = words[..5_000].chunks(1).collect();
        let rising: Vec<&[u8]> = (0..700).map(|len| &words[len..2 * len]).collect();
        let mut sparse: Vec<&[u8]> = vec![b""; 3_000];
        sparse[1_234] = b"a hash";
        for gpu in gpus() {
            check(gpu, &automaton, &none);
            check(gpu, &automaton, &[b""]);
            check(gpu, &automaton, &[b"", b"", b""]);
            check(gpu, &automaton, &[words]);
            for texts in [&halves[..], &long, &singles, &rising, &sparse] {
                check(gpu, &automaton, texts);
            }
        }
    }

    #[test]
    fn memories_have_the_masks_that_the_automaton_finds() {
        let automaton = testing::automaton();
        let memories = megaring_datasets::memories(3_000, 5).expect("the sample");
        let texts: Vec<_> = memories.iter().map(|memory| memory.content.as_bytes()).collect();
        for gpu in gpus() {
            check(gpu, &automaton, &texts);
        }
    }

    #[test]
    fn any_words_are_found_in_any_bytes() {
        let words = vec("[kia]{1,6}", 1..6);
        // Words, halves of letters outside ASCII, and what stands between words: also what is no UTF-8.
        let bytes = vec(select(b"kKiIaAb \xE2\x84\xAA\xC4\xB0".to_vec()), 0..300);
        let random = vec(0..=255_u8, 0..300);
        let texts = vec((bytes, random).prop_map(|(one, other)| [one, other]), 1..9);
        for gpu in gpus() {
            let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(64) });
            let case = (words.clone(), texts.clone());
            runner
                .run(&case, |(words, texts)| {
                    check(gpu, &automaton_of(&words), &texts.concat());
                    Ok(())
                })
                .unwrap_or_else(|failure| panic!("{failure}"));
        }
    }

    #[test]
    fn masks_begin_empty_whatever_the_output_held() {
        let shape = AutomatonShape::of(&testing::automaton());
        let texts = Texts::new(&[0, 0, 4, 4], b"text").expect("offsets rise");
        let mut job = Encode { texts, automaton: shape };
        let script = job.round(&[], true);
        assert!(matches!(&script.steps[..], [Step::ClearOutput(Range { start: 0, end: 48 }), Step::Dispatch { .. }]));
    }

    #[test]
    fn a_dispatch_has_room_for_the_longest_text() {
        for text_bytes in [1, 63, 64, 65, 4_194_240, 1 << 28, (1 << 28) + 1, u32::MAX - 1, u32::MAX] {
            let (run, runs) = runs_of(text_bytes);
            assert!(runs.div_ceil(WORKGROUP) <= MOST_WORKGROUPS && run % 4 == 0, "{text_bytes}");
            let (run, runs, bytes) = (u64::from(run), u64::from(runs), u64::from(text_bytes));
            assert!(run * runs >= bytes && run * (runs - 1) < bytes, "{text_bytes}");
        }
    }
}
