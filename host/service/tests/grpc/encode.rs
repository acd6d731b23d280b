//! Encode over the wire equals the golden file, for texts of every length.

use megaring_datasets::reference::{self, Profile};
use megaring_datasets::{golden, memories};
use megaring_proto::v1 as pb;

use crate::common::{Running, Wanted, folder};

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_file_comes_back() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let cases = golden().expect("the golden file");
    let memory = |case: &megaring_datasets::GoldenCase| pb::Memory {
        content: case.content.clone(),
        importance: case.importance,
        access_count: case.access_count,
        age_days: case.age_days,
        galactic_distance: case.galactic_distance,
        garden: case.garden.clone(),
    };
    let request = pb::EncodeRequest {
        memories: cases.iter().map(memory).collect(),
        with_masks: true,
        ..pb::EncodeRequest::default()
    };
    let mut compute = server.compute().await;
    let with = compute.encode(request.clone()).await.expect("an answer").into_inner();
    assert_eq!(with.profile, "whitemagic-v1");
    assert_eq!(with.words.len(), 123);
    assert_eq!((with.coordinates.len(), with.zones.len(), with.masks.len()), (644 * 5, 644, 644 * 16));
    let points = with.coordinates.as_chunks::<5>().0;
    let masks = with.masks.as_chunks::<16>().0;
    for (index, case) in cases.iter().enumerate() {
        assert_eq!(u128::from_le_bytes(masks[index]), case.mask, "{}", case.id);
        assert_eq!(with.zones[index], u32::from(case.zone), "{}", case.id);
        for (found, expected) in points[index].iter().zip(case.coordinates) {
            assert!((found - expected).abs() <= 1e-12, "{}: {found} and {expected}", case.id);
        }
    }
    let without = compute.encode(pb::EncodeRequest { with_masks: false, ..request }).await.expect("an answer");
    let without = without.into_inner();
    assert!(without.masks.is_empty() && without.words.is_empty(), "masks only where asked for");
    assert_eq!((without.coordinates, without.zones), (with.coordinates, with.zones));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_no_bytes_and_of_ten_megabytes() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let profile = Profile::whitemagic().expect("the profile");
    let mut long = memories(40_000, 5).expect("memories").text().to_owned();
    long.truncate(long.floor_char_boundary(10_000_000));
    assert!(long.len() > 9_999_000);
    let texts = [String::new(), long, "a system of love and logic".into()];
    let memory = |content: &String| pb::Memory { content: content.clone(), ..pb::Memory::default() };
    let request =
        pb::EncodeRequest { memories: texts.iter().map(memory).collect(), with_masks: true, ..Default::default() };
    let response = server.compute().await.encode(request).await.expect("an answer").into_inner();
    for (index, content) in texts.iter().enumerate() {
        let numbers = (0.0, 0, 0.0, 0.0);
        let memory = reference::Memory {
            content,
            importance: numbers.0,
            access_count: numbers.1,
            age_days: numbers.2,
            galactic_distance: numbers.3,
            garden: "",
        };
        let expected = reference::encode(&memory, &profile);
        assert_eq!(response.masks[index * 16..][..16], expected.mask.to_le_bytes(), "text {index}");
        assert_eq!(response.zones[index], u32::from(expected.zone), "text {index}");
    }
    server.stop().await;
}
