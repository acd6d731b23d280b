//! The compiled kernels: one image with code for every architecture, or the reason why this build has none. It never
//! changes while the program runs; whether a GPU of this machine can run it, the driver says when it loads the image.

/// The driver reads the image in words of up to 16 bytes.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));

/// Why the kernels were left out, as the end of a sentence; empty where they are in.
const LEFT_OUT: &str = env!("MEGARING_CUDA_LEFT_OUT");

/// The image, aligned to 16 bytes; or why there is none, and what to do, as the end of a sentence.
pub(crate) fn image() -> Result<&'static [u8], &'static str> {
    if LEFT_OUT.is_empty() { Ok(&IMAGE.0) } else { Err(LEFT_OUT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How every image begins that `cuModuleLoadFatBinary` takes.
    const MAGIC: u32 = 0xBA55_ED50;

    #[test]
    fn there_is_an_image_or_a_reason() {
        match image() {
            Ok(image) => {
                assert_eq!(image.as_ptr().addr() % 16, 0);
                assert_eq!(image[..4], MAGIC.to_le_bytes());
            }
            Err(reason) => assert!(!reason.is_empty() && IMAGE.0.is_empty(), "{reason}"),
        }
    }
}
