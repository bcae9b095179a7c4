use lapidary_kernels::rotary::{Rotary, Turns, rotate, rotate_backward};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

/// Hugging Face's `x cos + rotate_half(x) sin` of one head.
pub(super) fn turn(x: &[f64], angles: &[f64]) -> Vec<f64> {
    let planes = x.len() / 2;
    (0..x.len())
        .map(|i| {
            let (plane, other) = if i < planes { (i, -x[i + planes]) } else { (i - planes, x[i - planes]) };
            // No angles at all: not turned.
            if angles.is_empty() { x[i] } else { x[i] * angles[plane].cos() + other * angles[plane].sin() }
        })
        .collect()
}

pub(super) fn turn_back(x: &[f64], angles: &[f64]) -> Vec<f64> {
    turn(x, &angles.iter().map(|angle| -angle).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn in_place_the_same_bits(tokens in 0usize..40, heads in 1usize..5, planes in 1usize..40, rest in 0usize..9) {
        let columns = 2 * planes * heads;
        let positions: Vec<usize> = (0..tokens).map(|token| token * token * 7919 % 131_072).collect();
        let frequencies = Rotary::new(1e4, 2 * planes).frequencies;
        let x = random(tokens * columns, 1);
        let mut expected = vec![f32::NAN; x.len()];
        rotate(&x, &frequencies, &positions, &mut expected);
        let stride = columns + rest;
        let mut rows: Vec<f32> = x.chunks(columns).flat_map(|row| row.iter().copied().chain((0..rest).map(|i| i as f32))).collect();
        let positions: Vec<u32> = positions.iter().map(|position| *position as u32).collect();
        Turns::new(&frequencies, &positions).apply(&mut rows, stride, 0..columns);
        for (row, expected) in rows.chunks(stride).zip(expected.chunks(columns)) {
            prop_assert_eq!(&row[..columns], expected);
            prop_assert!(row[columns..].iter().enumerate().all(|(i, x)| *x == i as f32));
        }
    }

    #[test]
    fn agrees_with_f64(tokens in 0usize..40, heads in 1usize..5, planes in 1usize..40, scale in 1.0..16.0) {
        let width = 2 * planes;
        let x = random(tokens * heads * width, 1);
        let positions: Vec<usize> = (0..tokens).map(|token| token * token * 7919 % 131_072).collect();
        let rotary = Rotary::new(1e6, width).scaled(scale);
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        rotate(&x, &rotary.frequencies, &positions, &mut y);
        rotate_backward(&x, &rotary.frequencies, &positions, &mut dx);
        let (mut turned, mut turned_back) = (Vec::new(), Vec::new());
        for (token, position) in to_f64(&x).chunks(heads * width).zip(&positions) {
            let angle = |plane| *position as f64 / scale / 1e6f64.powf(2.0 * plane as f64 / width as f64);
            let angles: Vec<f64> = (0..planes).map(angle).collect();
            turned.extend(token.chunks(width).flat_map(|head| turn(head, &angles)));
            turned_back.extend(token.chunks(width).flat_map(|head| turn_back(head, &angles)));
        }
        assert_close(&y, &turned, 3e-7, "y");
        assert_close(&dx, &turned_back, 3e-7, "dx");
    }
}
