use burn::tensor::{Int, Tensor, TensorData};
use lapidary_ops::embedding;
use proptest::prelude::*;

use super::{Input, TOLERANCE, assert_same};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_its_twin(rows in 1usize..20, width in 1usize..40, n in 1usize..30) {
        // Some rows several times, some never.
        let ids: Vec<u32> = (0..n).map(|i| (i * i % rows) as u32).collect();
        let indices: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
        assert_same(
            [Input::random("table", rows, width)],
            TOLERANCE,
            |[table]| embedding(table, &ids),
            |[table]| {
                let indices = TensorData::new(indices.clone(), [n]);
                let indices = Tensor::<1, Int>::from_data(indices, &table.device());
                table.select(0, indices)
            },
        );
    }
}
