use lapidary_kernels::dropout::dropout;

fn choices(n: usize, p: f32, (seed, step, place): (u64, u64, u64)) -> Vec<f32> {
    let mut y = vec![f32::NAN; n];
    dropout(&vec![1.0; n], p, seed, step, place, &mut y);
    y
}

#[test]
fn drops_with_the_probability_and_keeps_the_mean() {
    let n = 200_001;
    for p in [0.1, 0.5, 0.9] {
        let y = choices(n, p, (1, 2, 3));
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f32 / n as f32;
        assert!((dropped - p).abs() < 0.005, "{dropped} of {p}");
        assert!(y.iter().all(|&y| y == 0.0 || y == 1.0 / (1.0 - p)));
    }
    assert_eq!(choices(5, 0.0, (1, 2, 3)), [1.0; 5]);
    assert_eq!(choices(5, 1.0, (1, 2, 3)), [0.0; 5]);
}

#[test]
fn choices_belong_to_seed_step_place_and_element() {
    let all = choices(40_001, 0.5, (1, 2, 3));
    assert_eq!(all, choices(40_001, 0.5, (1, 2, 3)));
    assert_eq!(all[..333], choices(333, 0.5, (1, 2, 3)));
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)] {
        let same = all.iter().zip(choices(40_001, 0.5, other)).filter(|(a, b)| *a == b).count();
        assert!((18_500..21_500).contains(&same), "{same} of 40001 agree with {other:?}");
    }
    // Words of one counter and of neighbouring ones must be independent.
    for distance in [1, 64, 256] {
        let same = all[distance..].iter().zip(&all).filter(|(a, b)| a == b).count();
        assert!((18_500..21_500).contains(&same), "{same} agree with their neighbour {distance} away");
    }
}
