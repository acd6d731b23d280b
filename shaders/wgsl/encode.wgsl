// Encode: each text's keywords, by the host's automaton (host/core/src/encode/keyword.rs) on every byte.
//
// An invocation reads a run of bytes of the whole text, wherever texts begin and end, so runs are equally long however
// long texts are. The state at a byte depends on the `warm_up` bytes before it and on no others: an invocation begins
// that far before its run, or at its text's start where that is nearer, and is then in the state that a reader of the
// whole text would be in. A run lies within few cache lines that nobody else reads, and the tables are small, so that
// what the automaton waits for is in the first cache.

struct EncodeParams {
    // Number of them.
    texts: u32,
    // Length of all texts.
    text_bytes: u32,
    // Bytes of a run, a multiple of 4, and number of runs.
    run: u32,
    runs: u32,
    // How far back a state reaches, the logarithm of the classes of a state, and the first state that has words.
    warm_up: u32,
    shift: u32,
    first_accepting: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: EncodeParams;
// Where each text begins, the end of the last one, and the texts' bytes.
@group(0) @binding(1) var<storage, read> input: array<u32>;
// Four words for each text, zeroed.
@group(0) @binding(3) var<storage, read_write> masks: array<atomic<u32>>;
// The next state, two to a word, by state and class.
@group(1) @binding(0) var<storage, read> next: array<u32>;
// Classes of the 256 bytes, four to a word, then the words found in each accepting state.
@group(1) @binding(1) var<storage, read> classes: array<u32>;

const CLASS_WORDS: u32 = 64u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.runs {
        return;
    }
    let begin = id.x * params.run;
    let end = begin + min(params.run, params.text_bytes - begin);
    var text = text_at(begin);
    let start = input[text];
    var text_end = input[text + 1u];
    var at = select(begin - params.warm_up, start, begin - start < params.warm_up);
    var bytes = bytes_at(at);
    var state = 0u;
    var found = vec4<u32>();
    while at < end {
        if at == text_end {
            add(text, found);
            found = vec4<u32>();
            state = 0u;
            // Empty texts lie on the way.
            while at == text_end {
                text += 1u;
                text_end = input[text + 1u];
            }
        }
        if at % 4u == 0u {
            bytes = bytes_at(at);
        }
        state = step(state, extractBits(bytes, at % 4u * 8u, 8u));
        if state >= params.first_accepting && at >= begin {
            found |= words_of(state);
        }
        at += 1u;
    }
    add(text, found);
}

// The text that a byte lies in: the last that begins at it or before. It is not empty.
fn text_at(position: u32) -> u32 {
    var low = 0u;
    var count = params.texts;
    while count > 1u {
        let half = count / 2u;
        if input[low + half] <= position {
            low += half;
        }
        count -= half;
    }
    return low;
}

fn bytes_at(position: u32) -> u32 {
    return input[params.texts + 1u + position / 4u];
}

fn step(state: u32, byte: u32) -> u32 {
    let class_of = extractBits(classes[byte / 4u], byte % 4u * 8u, 8u);
    let place = (state << params.shift) | class_of;
    return extractBits(next[place / 2u], place % 2u * 16u, 16u);
}

fn words_of(state: u32) -> vec4<u32> {
    let first = CLASS_WORDS + (state - params.first_accepting) * 4u;
    return vec4<u32>(classes[first], classes[first + 1u], classes[first + 2u], classes[first + 3u]);
}

// Adds words to a text's mask, to which neighbours may be adding.
fn add(text: u32, found: vec4<u32>) {
    for (var part = 0u; part < 4u; part += 1u) {
        if found[part] != 0u {
            atomicOr(&masks[text * 4u + part], found[part]);
        }
    }
}
