// Checksum: CRC-32C and xxHash64 of byte strings (host/core/src/checksum.rs), an invocation to a string.
//
// CRC-32C goes by four bytes and four tables, which the workgroup makes for itself ("slicing by 4": Kounavis and Berry,
// 2005). 64-bit numbers are two words, the low one first. A dispatch takes a window of each string, counted from where
// the string begins; a string that goes on leaves its state for the next one.

struct ChecksumParams {
    // Number of strings.
    strings: u32,
    // Where the window begins, and its bytes: multiples of 32.
    window_begin: u32,
    window: u32,
}

@group(0) @binding(0) var<uniform> params: ChecksumParams;
// Where each string begins, the end of the last one, and the strings' bytes.
@group(0) @binding(1) var<storage, read> input: array<u32>;
// The state of each string that goes on; without any there is none, and nothing is read.
@group(0) @binding(2) var<storage, read_write> scratch: array<State>;
// For each string its CRC, 0, and its hash.
@group(0) @binding(3) var<storage, read_write> output: array<vec4<u32>>;

// After whole stripes of 32 bytes: the four lanes of the hash, and the CRC as a low word.
alias State = array<vec2<u32>, 5>;

// Entry `byte` of table `t` is the CRC of that byte and `t` zero bytes after it.
var<workgroup> tables: array<array<u32, 256>, 4>;

const THREADS: u32 = 64u;
const CRC32C_REFLECTED: u32 = 0x82F63B78u;
const PRIME_1 = vec2<u32>(0x85EBCA87u, 0x9E3779B1u);
const PRIME_2 = vec2<u32>(0x27D4EB4Fu, 0xC2B2AE3Du);
const PRIME_3 = vec2<u32>(0x9E3779F9u, 0x165667B1u);
const PRIME_4 = vec2<u32>(0xC2B2AE63u, 0x85EBCA77u);
const PRIME_5 = vec2<u32>(0x165667C5u, 0x27D4EB2Fu);
// PRIME_1 + PRIME_2, and 0 - PRIME_1.
const LANE_0 = vec2<u32>(0xADC0B5D6u, 0x60EA27EEu);
const LANE_3 = vec2<u32>(0x7A143579u, 0x61C8864Eu);

@compute @workgroup_size(THREADS)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    for (var byte = thread; byte < 256u; byte += THREADS) {
        var crc = byte;
        for (var bit = 0u; bit < 8u; bit += 1u) {
            crc = (crc >> 1u) ^ select(0u, CRC32C_REFLECTED, (crc & 1u) != 0u);
        }
        tables[0][byte] = crc;
    }
    workgroupBarrier();
    for (var byte = thread; byte < 256u; byte += THREADS) {
        var crc = tables[0][byte];
        for (var table = 1u; table < 4u; table += 1u) {
            crc = (crc >> 8u) ^ tables[0][crc & 0xFFu];
            tables[table][byte] = crc;
        }
    }
    workgroupBarrier();
    for (var string = id.x; string < params.strings; string += workgroups.x * THREADS) {
        let length = input[string + 1u] - input[string];
        if params.window_begin > 0u && length <= params.window_begin {
            continue;
        }
        var state = State(LANE_0, PRIME_2, vec2<u32>(), LANE_3, vec2<u32>(0xFFFFFFFFu, 0u));
        if params.window_begin > 0u {
            state = scratch[string];
        }
        let begin = input[string] + params.window_begin;
        if length - params.window_begin > params.window {
            scratch[string] = after_stripes(state, begin, begin + params.window);
        } else {
            output[string] = checksums(state, begin, input[string + 1u], length);
        }
    }
}

// The state after the whole stripes of begin..end.
fn after_stripes(before: State, begin: u32, end: u32) -> State {
    var state = before;
    for (var at = begin; end - at >= 32u; at += 32u) {
        for (var lane = 0u; lane < 4u; lane += 1u) {
            let word = vec2<u32>(u32_at(at + 8u * lane), u32_at(at + 8u * lane + 4u));
            state[4].x = crc_u32(crc_u32(state[4].x, word.x), word.y);
            state[lane] = xxhash_round(state[lane], word);
        }
    }
    return state;
}

// Those of a string of `length` bytes, of which begin..end are left.
fn checksums(before: State, begin: u32, end: u32, length: u32) -> vec4<u32> {
    var lanes = after_stripes(before, begin, end);
    var crc = lanes[4].x;
    var at = end - (end - begin) % 32u;
    var hash = PRIME_5;
    if length >= 32u {
        let sum = add(rotate(lanes[0], 1u), rotate(lanes[1], 7u));
        hash = add(sum, add(rotate(lanes[2], 12u), rotate(lanes[3], 18u)));
        for (var lane = 0u; lane < 4u; lane += 1u) {
            hash = add(multiply(hash ^ xxhash_round(vec2<u32>(), lanes[lane]), PRIME_1), PRIME_4);
        }
    }
    hash = add(hash, vec2<u32>(length, 0u));
    for (; end - at >= 8u; at += 8u) {
        let word = vec2<u32>(u32_at(at), u32_at(at + 4u));
        crc = crc_u32(crc_u32(crc, word.x), word.y);
        hash = add(multiply(rotate(hash ^ xxhash_round(vec2<u32>(), word), 27u), PRIME_1), PRIME_4);
    }
    if end - at >= 4u {
        let word = u32_at(at);
        crc = crc_u32(crc, word);
        hash = add(multiply(rotate(hash ^ multiply(vec2<u32>(word, 0u), PRIME_1), 23u), PRIME_2), PRIME_3);
        at += 4u;
    }
    for (; at < end; at += 1u) {
        let byte = extractBits(content_word(at / 4u), at % 4u * 8u, 8u);
        crc = (crc >> 8u) ^ tables[0][(crc ^ byte) & 0xFFu];
        hash = multiply(rotate(hash ^ multiply(vec2<u32>(byte, 0u), PRIME_5), 11u), PRIME_1);
    }
    // The low word of a number shifted down by 33, by 29 and by 32 bits, and its high word.
    hash = multiply(hash ^ vec2<u32>(hash.y >> 1u, 0u), PRIME_2);
    hash = multiply(hash ^ vec2<u32>((hash.x >> 29u) | (hash.y << 3u), hash.y >> 29u), PRIME_3);
    hash ^= vec2<u32>(hash.y, 0u);
    return vec4<u32>(~crc, 0u, hash);
}

// The strings' bytes by fours.
fn content_word(word: u32) -> u32 {
    return input[params.strings + 1u + word];
}

// Four bytes of a string, wherever they begin: all within it, and only words that hold some of them are read.
fn u32_at(position: u32) -> u32 {
    let shift = position % 4u * 8u;
    let low = content_word(position / 4u);
    if shift == 0u {
        return low;
    }
    return (low >> shift) | (content_word(position / 4u + 1u) << (32u - shift));
}

fn crc_u32(before: u32, word: u32) -> u32 {
    let crc = before ^ word;
    let low = tables[3][crc & 0xFFu] ^ tables[2][(crc >> 8u) & 0xFFu];
    return low ^ tables[1][(crc >> 16u) & 0xFFu] ^ tables[0][crc >> 24u];
}

fn xxhash_round(lane: vec2<u32>, word: vec2<u32>) -> vec2<u32> {
    return multiply(rotate(add(lane, multiply(word, PRIME_2)), 31u), PRIME_1);
}

fn add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

// To the left, by 1 to 31 bits.
fn rotate(value: vec2<u32>, by: u32) -> vec2<u32> {
    return (value << vec2<u32>(by)) | (value.yx >> vec2<u32>(32u - by));
}

fn multiply(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = wide_product(a.x, b.x);
    return vec2<u32>(low.x, low.y + a.x * b.y + a.y * b.x);
}

fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xFFFFu;
    let a_high = a >> 16u;
    let b_low = b & 0xFFFFu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let cross = a_high * b_low;
    let other = a_low * b_high;
    let middle = (low >> 16u) + (cross & 0xFFFFu) + (other & 0xFFFFu);
    let high = a_high * b_high + (cross >> 16u) + (other >> 16u) + (middle >> 16u);
    return vec2<u32>((low & 0xFFFFu) | (middle << 16u), high);
}
