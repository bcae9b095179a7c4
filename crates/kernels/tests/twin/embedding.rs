use lapidary_kernels::embedding::{gather, scatter_add};
use proptest::prelude::*;

use super::{assert_close, difference, random};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rows_are_copied_and_their_gradients_added(rows in 1usize..9, width in 1usize..20, n in 0usize..30) {
        let table = random(rows * width, 1);
        let ids: Vec<u32> = (0..n).map(|i| (i * i % rows) as u32).collect();
        let mut out = vec![f32::NAN; n * width];
        gather(&table, width, &ids, &mut out);
        for (out, &id) in out.chunks(width).zip(&ids) {
            prop_assert_eq!(out, &table[id as usize * width..][..width]);
        }
        let dy = random(n * width, 2);
        let mut dtable = vec![0.0; rows * width];
        scatter_add(&dy, width, &ids, &mut dtable);
        let gather64 =
            |table: &[f64]| ids.iter().flat_map(|&id| table[id as usize * width..][..width].to_vec()).collect();
        assert_close(&dtable, &difference(&table, &dy, gather64), 1e-5, "dtable");
    }
}

#[test]
fn gathers_more_rows_than_a_chunk() {
    let (rows, width) = (50, 96);
    let table = random(rows * width, 1);
    let ids: Vec<u32> = (0..1000).map(|i| i * 37 % rows as u32).collect();
    let mut out = vec![0.0; ids.len() * width];
    gather(&table, width, &ids, &mut out);
    assert!(out.chunks(width).zip(&ids).all(|(out, &id)| out == &table[id as usize * width..][..width]));
}
