// Float64 arithmetic in integers, four numbers at a time: IEEE 754's results, rounded to nearest even, bit for bit.
//
// A number is kept unpacked, as m * 2^exponent, where m is a signed integer of 64 bits: 0, or 53 significant bits with
// |m| within [2^57, 2^58], so that its low five bits are 0. Exponents are unbounded here; there are no subnormal
// numbers, infinities or negative zeros. None is needed: products of finite float32 values are 0 or from 2^-298 to
// 2^258, and a sum of fewer than 2^32 of them is below 2^290. Neither comes near the ends of float64's range, and nor
// do products, roots and quotients of such numbers.
//
// There are no branches: threads that run in step would take them all the same.

struct Float64 {
    high: vec4<i32>,
    low: vec4<u32>,
    exponent: vec4<i32>,
}

// Four float32 values as mantissa * 2^exponent: 0, or |mantissa| within [2^28, 2^29) with the low five bits 0.
struct Elements {
    mantissa: vec4<i32>,
    exponent: vec4<i32>,
}

// The exponent of zero: below all others, so that a number that zero is added to keeps its bits.
const NOTHING: i32 = -8192;

struct Words {
    high: vec4<u32>,
    low: vec4<u32>,
}

// The product of two words.
fn multiply_words(a: vec4<u32>, b: vec4<u32>) -> Words {
    let half = vec4<u32>(0xFFFFu);
    let a_low = a & half;
    let a_high = a >> vec4<u32>(16u);
    let b_low = b & half;
    let b_high = b >> vec4<u32>(16u);
    let middle = a_high * b_low + ((a_low * b_low) >> vec4<u32>(16u));
    let other = a_low * b_high + (middle & half);
    return Words(a_high * b_high + (middle >> vec4<u32>(16u)) + (other >> vec4<u32>(16u)), a * b);
}

// Shifts left by 0 to 63 bits.
fn shift_left(high: vec4<u32>, low: vec4<u32>, bits: vec4<u32>) -> Words {
    let far = bits >= vec4<u32>(32u);
    let top = select(high, low, far);
    let bottom = select(low, vec4<u32>(0u), far);
    let rest = bits & vec4<u32>(31u);
    // In two steps, since a shift by 32 would be none.
    let carried = (bottom >> vec4<u32>(1u)) >> (rest ^ vec4<u32>(31u));
    return Words((top << rest) | carried, bottom << rest);
}

// Shifts right by 0 to 63 bits. The lowest bit is set where a bit that is lost was set: the result lies on the same
// side of every even number as what was shifted.
fn shift_right(high: vec4<i32>, low: vec4<u32>, bits: vec4<u32>) -> Words {
    let far = bits >= vec4<u32>(32u);
    let top = select(high, high >> vec4<u32>(31u), far);
    let bottom = select(low, bitcast<vec4<u32>>(high), far);
    let rest = bits & vec4<u32>(31u);
    let back = rest ^ vec4<u32>(31u);
    let carried = (bitcast<vec4<u32>>(top) << vec4<u32>(1u)) << back;
    let lost = ((bottom << vec4<u32>(1u)) << back) | select(vec4<u32>(0u), low, far);
    let sticky = select(vec4<u32>(0u), vec4<u32>(1u), lost != vec4<u32>(0u));
    return Words(bitcast<vec4<u32>>(top >> rest), (bottom >> rest) | carried | sticky);
}

// The nearest number to m * 2^exponent. |m| is below 2^60. Where bits were lost before, its lowest bit is set, and |m|
// is at least 2^55.
fn rounded(high: vec4<i32>, low: vec4<u32>, exponent: vec4<i32>) -> Float64 {
    let sign = high >> vec4<u32>(31u);
    let small = high == sign;
    let leading = bitcast<vec4<u32>>(select(high ^ sign, bitcast<vec4<i32>>(low) ^ sign, small));
    // To [2^60, 2^61), where the last of 53 bits is 2^8. A negative power of two comes to 2^61 here.
    let shift = countLeadingZeros(leading) + select(vec4<u32>(0u), vec4<u32>(32u), small) - vec4<u32>(3u);
    let whole = shift_left(bitcast<vec4<u32>>(high), low, shift);
    let nearest = whole.low + vec4<u32>(0x7Fu) + ((whole.low >> vec4<u32>(8u)) & vec4<u32>(1u));
    let top = whole.high + select(vec4<u32>(0u), vec4<u32>(1u), nearest < whole.low);
    let bottom = ((nearest & vec4<u32>(0xFFFFFF00u)) >> vec4<u32>(3u)) | (top << vec4<u32>(29u));
    let zero = (bitcast<vec4<u32>>(high) | low) == vec4<u32>(0u);
    let power = exponent + vec4<i32>(3) - bitcast<vec4<i32>>(shift);
    return Float64(bitcast<vec4<i32>>(top) >> vec4<u32>(3u), bottom, select(power, vec4<i32>(NOTHING), zero));
}

// The sum of two numbers, and of a number and a product.
fn add(a: Float64, b: Float64) -> Float64 {
    let ahead = a.exponent >= b.exponent;
    let apart = abs(a.exponent - b.exponent);
    // The smaller number loses bits only where it is at least 2^5 times smaller, so the sum keeps its magnitude.
    let places = bitcast<vec4<u32>>(min(apart, vec4<i32>(63)));
    let moved = shift_right(select(a.high, b.high, ahead), select(a.low, b.low, ahead), places);
    let kept = select(b.low, a.low, ahead);
    let low = kept + moved.low;
    let carry = select(vec4<i32>(0), vec4<i32>(1), low < kept);
    let high = select(b.high, a.high, ahead) + bitcast<vec4<i32>>(moved.high) + carry;
    return rounded(high, low, max(a.exponent, b.exponent));
}

// Four float32 values by their bits.
fn elements_of(bits: vec4<u32>) -> Elements {
    let magnitude = bits & vec4<u32>(0x7FFFFFFFu);
    let subnormal = magnitude < vec4<u32>(0x00800000u);
    // A subnormal value is an integer of less than 24 bits times 2^-149.
    let whole = select(magnitude, bitcast<vec4<u32>>(vec4<f32>(magnitude)), subnormal);
    let fraction = ((whole & vec4<u32>(0x007FFFFFu)) | vec4<u32>(0x00800000u)) << vec4<u32>(5u);
    let sign = bitcast<vec4<i32>>(bits) >> vec4<u32>(31u);
    let signed = (bitcast<vec4<i32>>(fraction) ^ sign) - sign;
    let exponent = bitcast<vec4<i32>>(whole >> vec4<u32>(23u)) - select(vec4<i32>(155), vec4<i32>(304), subnormal);
    let zero = magnitude == vec4<u32>(0u);
    return Elements(select(signed, vec4<i32>(0), zero), select(exponent, vec4<i32>(NOTHING), zero));
}

// The product of two elements, which is exact: 0, or from 2^56 to 2^58 with the low ten bits 0.
fn product(a: Elements, b: Elements) -> Float64 {
    let half = vec4<i32>(0xFFFF);
    let a_low = a.mantissa & half;
    let a_high = a.mantissa >> vec4<u32>(16u);
    let b_low = b.mantissa & half;
    let b_high = b.mantissa >> vec4<u32>(16u);
    let bottom = bitcast<vec4<u32>>(a_low) * bitcast<vec4<u32>>(b_low);
    // Below 2^30 + 2^16: the high halves are below 2^13.
    let middle = a_high * b_low + a_low * b_high + bitcast<vec4<i32>>(bottom >> vec4<u32>(16u));
    let low = (bitcast<vec4<u32>>(middle) << vec4<u32>(16u)) | (bottom & vec4<u32>(0xFFFFu));
    return Float64(a_high * b_high + (middle >> vec4<u32>(16u)), low, a.exponent + b.exponent);
}

// An element as a number.
fn number_of(a: Elements) -> Float64 {
    let low = bitcast<vec4<u32>>(a.mantissa) << vec4<u32>(29u);
    return Float64(a.mantissa >> vec4<u32>(3u), low, a.exponent - vec4<i32>(29));
}

fn difference(a: Elements, b: Elements) -> Float64 {
    return add(number_of(a), number_of(Elements(-b.mantissa, b.exponent)));
}

// The number without its sign, and so that |m| is below 2^58.
fn magnitude_of(a: Float64) -> Float64 {
    let sign = a.high >> vec4<u32>(31u);
    let mask = bitcast<vec4<u32>>(sign);
    let low = (a.low ^ mask) - mask;
    let carry = select(vec4<i32>(0), vec4<i32>(1), (sign != vec4<i32>(0)) & (a.low == vec4<u32>(0u)));
    let high = (a.high ^ sign) + carry;
    // A power of two at 2^58, of which the low word is 0.
    let over = high == vec4<i32>(0x04000000);
    let exponent = a.exponent + select(vec4<i32>(0), vec4<i32>(1), over);
    return Float64(select(high, vec4<i32>(0x02000000), over), low, exponent);
}

// The product of two numbers, without a sign.
fn multiply_magnitudes(first: Float64, second: Float64) -> Float64 {
    let a = magnitude_of(first);
    let b = magnitude_of(second);
    let a_high = bitcast<vec4<u32>>(a.high);
    let b_high = bitcast<vec4<u32>>(b.high);
    let bottom = multiply_words(a.low, b.low);
    let one = multiply_words(a_high, b.low);
    let other = multiply_words(a.low, b_high);
    let top = multiply_words(a_high, b_high);
    let zero = vec4<u32>(0u);
    let unit = vec4<u32>(1u);
    // Words of the product from 2^32 on. The middle ones are below 2^58, so that their sum is below 2^59.
    let middle_low = one.low + other.low;
    let middle_high = one.high + other.high + select(zero, unit, middle_low < one.low);
    let first_word = bottom.high + middle_low;
    let second_part = middle_high + select(zero, unit, first_word < middle_low);
    let second_word = top.low + second_part;
    let third_word = top.high + select(zero, unit, second_word < second_part);
    // By 2^58 less, to [2^56, 2^58).
    let lost = ((first_word << vec4<u32>(6u)) | bottom.low) != zero;
    let low = (second_word << vec4<u32>(6u)) | (first_word >> vec4<u32>(26u)) | select(zero, unit, lost);
    let high = (third_word << vec4<u32>(6u)) | (second_word >> vec4<u32>(26u));
    return rounded(bitcast<vec4<i32>>(high), low, a.exponent + b.exponent + vec4<i32>(58));
}

// The quotient of two numbers, without a sign, of which the second is not 0.
fn divide_magnitudes(first: Float64, second: Float64) -> Float64 {
    let a = magnitude_of(first);
    let b = magnitude_of(second);
    let b_high = bitcast<vec4<u32>>(b.high);
    var rest_high = bitcast<vec4<u32>>(a.high);
    var rest_low = a.low;
    var high = vec4<u32>();
    var low = vec4<u32>();
    // A digit at a time, the first for 2^58: the quotient is within (2^57, 2^59), or 0.
    for (var digit = 0u; digit < 59u; digit++) {
        let fits = (rest_high > b_high) | ((rest_high == b_high) & (rest_low >= b.low));
        let borrow = select(vec4<u32>(0u), vec4<u32>(1u), rest_low < b.low);
        rest_high = select(rest_high, rest_high - b_high - borrow, fits);
        rest_low = select(rest_low, rest_low - b.low, fits);
        rest_high = (rest_high << vec4<u32>(1u)) | (rest_low >> vec4<u32>(31u));
        rest_low <<= vec4<u32>(1u);
        high = (high << vec4<u32>(1u)) | (low >> vec4<u32>(31u));
        low = (low << vec4<u32>(1u)) | select(vec4<u32>(0u), vec4<u32>(1u), fits);
    }
    let lost = (rest_high | rest_low) != vec4<u32>(0u);
    low |= select(vec4<u32>(0u), vec4<u32>(1u), lost);
    return rounded(bitcast<vec4<i32>>(high), low, a.exponent - b.exponent - vec4<i32>(58));
}

// The square root of a number, without a sign.
fn root_of_magnitude(number: Float64) -> Float64 {
    let a = magnitude_of(number);
    // An even exponent, and m within [2^57, 2^59) or 0: thirty pairs of bits.
    let odd = bitcast<vec4<u32>>(a.exponent) & vec4<u32>(1u);
    let whole = shift_left(bitcast<vec4<u32>>(a.high), a.low, odd + vec4<u32>(4u));
    var next_high = whole.high;
    var next_low = whole.low;
    var rest_high = vec4<u32>();
    var rest_low = vec4<u32>();
    var high = vec4<u32>();
    var low = vec4<u32>();
    // A digit at a time, from 2^56 on, the first 30 for m and 27 beyond. What is left is at most twice the root.
    for (var digit = 0u; digit < 57u; digit++) {
        rest_high = (rest_high << vec4<u32>(2u)) | (rest_low >> vec4<u32>(30u));
        rest_low = (rest_low << vec4<u32>(2u)) | (next_high >> vec4<u32>(30u));
        next_high = (next_high << vec4<u32>(2u)) | (next_low >> vec4<u32>(30u));
        next_low <<= vec4<u32>(2u);
        // Four times the root so far, and one.
        let trial_high = (high << vec4<u32>(2u)) | (low >> vec4<u32>(30u));
        let trial_low = (low << vec4<u32>(2u)) | vec4<u32>(1u);
        let fits = (rest_high > trial_high) | ((rest_high == trial_high) & (rest_low >= trial_low));
        let borrow = select(vec4<u32>(0u), vec4<u32>(1u), rest_low < trial_low);
        rest_high = select(rest_high, rest_high - trial_high - borrow, fits);
        rest_low = select(rest_low, rest_low - trial_low, fits);
        high = (high << vec4<u32>(1u)) | (low >> vec4<u32>(31u));
        low = (low << vec4<u32>(1u)) | select(vec4<u32>(0u), vec4<u32>(1u), fits);
    }
    let lost = (rest_high | rest_low) != vec4<u32>(0u);
    low |= select(vec4<u32>(0u), vec4<u32>(1u), lost);
    let exponent = (a.exponent - bitcast<vec4<i32>>(odd)) >> vec4<u32>(1u);
    return rounded(bitcast<vec4<i32>>(high), low, exponent - vec4<i32>(27));
}

// Changes the sign where that is asked for.
fn negated(a: Float64, negative: vec4<bool>) -> Float64 {
    let borrow = select(vec4<i32>(0), vec4<i32>(1), a.low != vec4<u32>(0u));
    let low = select(a.low, vec4<u32>(0u) - a.low, negative);
    return Float64(select(a.high, -a.high - borrow, negative), low, a.exponent);
}

// The bits of four normal or zero numbers, and the numbers of such bits.
fn bits_of(number: Float64) -> Words {
    let a = magnitude_of(number);
    let sign = bitcast<vec4<u32>>(number.high) & vec4<u32>(0x80000000u);
    let fraction = (bitcast<vec4<u32>>(a.high) >> vec4<u32>(5u)) & vec4<u32>(0x000FFFFFu);
    let low = (a.low >> vec4<u32>(5u)) | (bitcast<vec4<u32>>(a.high) << vec4<u32>(27u));
    let exponent = bitcast<vec4<u32>>(a.exponent + vec4<i32>(1080)) << vec4<u32>(20u);
    let zero = a.high == vec4<i32>(0);
    return Words(select(sign | exponent | fraction, vec4<u32>(0u), zero), low);
}

fn number_of_bits(bits: Words) -> Float64 {
    let magnitude = bits.high & vec4<u32>(0x7FFFFFFFu);
    let fraction = (bits.high & vec4<u32>(0x000FFFFFu)) | vec4<u32>(0x00100000u);
    let high = bitcast<vec4<i32>>((fraction << vec4<u32>(5u)) | (bits.low >> vec4<u32>(27u)));
    let low = bits.low << vec4<u32>(5u);
    let zero = magnitude == vec4<u32>(0u);
    let exponent = select(bitcast<vec4<i32>>(magnitude >> vec4<u32>(20u)) - vec4<i32>(1080), vec4<i32>(NOTHING), zero);
    return negated(Float64(select(high, vec4<i32>(0), zero), low, exponent), bits.high != magnitude);
}

// The bits of the nearest float32; beyond its range, of the largest of the sign.
fn float32_of(number: Float64) -> vec4<u32> {
    let a = magnitude_of(number);
    // Of the first bit as float32 has it, at least 1. Subnormal results have fewer bits than 24.
    let biased = a.exponent + vec4<i32>(57 + 127);
    let missing = max(vec4<i32>(1) - biased, vec4<i32>(0));
    let shift = bitcast<vec4<u32>>(min(missing + vec4<i32>(32), vec4<i32>(63)));
    // Two bits more than the result has.
    let moved = shift_right(a.high, a.low, shift).low;
    let up = (moved & vec4<u32>(3u)) + ((moved >> vec4<u32>(2u)) & vec4<u32>(1u)) > vec4<u32>(2u);
    let digits = (moved >> vec4<u32>(2u)) + select(vec4<u32>(0u), vec4<u32>(1u), up);
    // The first of the digits, and a carry beyond it, count into the exponent.
    let exponent = bitcast<vec4<u32>>(clamp(biased - vec4<i32>(1), vec4<i32>(0), vec4<i32>(254))) << vec4<u32>(23u);
    let bits = min(exponent + digits, vec4<u32>(0x7F7FFFFFu));
    return bits | (bitcast<vec4<u32>>(number.high) & vec4<u32>(0x80000000u));
}
