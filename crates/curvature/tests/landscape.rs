//! Landscapes, and products that are kept.

use approx::assert_relative_eq;
use lapidary_curvature::eigen::{LanczosOptions, lanczos};
use lapidary_curvature::landscape::{line, places, plane, random_direction};
use lapidary_curvature::operator::Recorded;
use lapidary_curvature::{CurvatureError, Hessian, LinearOperator, Selection, Surface, dot, norm};

use super::golden::small_resnet;
use super::support::hessian_like;

#[test]
fn along_an_eigenvector_the_loss_is_a_parabola() {
    let network = super::golden::tied();
    let selection = Selection::of(&network.model, |_| true).unwrap();
    let surface = || Surface::new(network.model.clone(), &network.problem, selection.clone()).unwrap();
    let mut hessian = Hessian::new(surface(), None);
    let found = lanczos(&mut hessian, &LanczosOptions::default(), &mut |_| ()).unwrap();
    let (top, bottom) = (&found.largest[0], &found.smallest[0]);

    let radius = 0.02;
    let on_line =
        |direction: &[f32]| line(&mut surface(), direction, places(radius, 5), vec![], &mut |_| true).unwrap();
    let second = |losses: &[f64]| (losses[4] - 2.0 * losses[2] + losses[0]) / (radius * radius);
    let along_top = on_line(&top.vector);
    assert_eq!(along_top.places, [-radius, -radius / 2.0, 0.0, radius / 2.0, radius]);
    assert_relative_eq!(second(&along_top.losses), top.value, max_relative = 0.02);
    assert_relative_eq!(second(&on_line(&bottom.vector).losses), bottom.value, epsilon = 0.02 * top.value);

    let axes = [places(radius, 3), places(radius, 5)];
    let found = plane(&mut surface(), [&bottom.vector, &top.vector], axes, vec![], &mut |_| true).unwrap();
    assert_eq!((found.x.len(), found.y.len(), found.losses.len()), (3, 5, 15));
    let middle: Vec<f64> = (0..5).map(|y| found.losses[3 * y + 1]).collect();
    for (plane, line) in middle.iter().zip(&along_top.losses) {
        assert_relative_eq!(*plane, *line, max_relative = 1e-6);
    }
    let mut known = vec![];
    let stopped = line(&mut surface(), &top.vector, places(radius, 5), vec![], &mut |losses| {
        known = losses.to_vec();
        losses.len() < 2
    });
    assert!(matches!(stopped, Err(CurvatureError::Stopped)) && known == along_top.losses[..2]);
    let went_on = line(&mut surface(), &top.vector, places(radius, 5), known, &mut |_| true).unwrap();
    assert_eq!(went_on, along_top);
    assert_eq!((places(1.0, 0), places(1.0, 1)), (vec![], vec![0.0]));
}

#[test]
fn random_directions_have_the_filters_lengths() {
    let network = small_resnet();
    let selection = Selection::of(&network.model, |_| true).unwrap();
    let surface = Surface::new(network.model.clone(), &network.problem, selection.clone()).unwrap();
    let (one, other) =
        (random_direction(&selection, surface.middle(), 1), random_direction(&selection, surface.middle(), 2));
    for piece in selection.pieces() {
        let (direction, weights) = (&one[piece.range()], &surface.middle()[piece.range()]);
        if piece.shape.len() < 2 {
            assert_eq!(norm(direction), 0.0, "{}", piece.path);
            continue;
        }
        let row = piece.shape[1..].iter().product::<usize>();
        for (direction, weights) in direction.chunks(row).zip(weights.chunks(row)) {
            assert_relative_eq!(norm(direction), norm(weights), max_relative = 1e-5);
        }
    }
    assert!(dot(&one, &other).abs() < 0.2 * norm(&one) * norm(&other));
    // A part of a matrix that begins within a row.
    let part =
        Selection::parts_of(&network.model, |path, _| (path == "head.weight").then_some(3..20).into_iter().collect());
    let part = part.unwrap();
    let surface = Surface::new(network.model.clone(), &network.problem, part.clone()).unwrap();
    let direction = random_direction(&part, surface.middle(), 1);
    for row in [0..5, 5..13, 13..17] {
        assert_relative_eq!(norm(&direction[row.clone()]), norm(&surface.middle()[row]), max_relative = 1e-5);
    }
}

#[test]
fn selections_that_cannot_be_are_errors() {
    let network = small_resnet();
    assert!(matches!(Selection::of(&network.model, |_| false), Err(CurvatureError::Empty)));
    for runs in [vec![0..5, 4..6], vec![0..5, 7..100_000]] {
        let found =
            Selection::parts_of(&network.model, |path, _| if path == "head.weight" { runs.clone() } else { vec![] });
        assert!(matches!(found, Err(CurvatureError::Run { .. })));
    }
    let other = Selection::of(&super::golden::tied().model, |_| true).unwrap();
    let surface = Surface::new(network.model.clone(), &network.problem, other);
    assert!(matches!(surface.map(|_| ()), Err(CurvatureError::Parameter(_))));
}

#[test]
fn work_that_was_stopped_goes_on_from_its_products() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("products");
    let options = LanczosOptions { largest: 3, smallest: 2, ..Default::default() };
    let operator = || hessian_like(700, &[9.0, 4.0, 3.0, -2.0]);
    let whole = lanczos(&mut operator(), &options, &mut |_| ()).unwrap();

    let made = std::cell::Cell::new(0);
    let at_most = |most: usize| {
        let made = &made;
        move || {
            made.set(made.get() + 1);
            made.get() <= most
        }
    };
    let few = at_most(6);
    let mut recorded = Recorded::new(operator(), &path, &few).unwrap();
    assert!(matches!(lanczos(&mut recorded, &options, &mut |_| ()), Err(CurvatureError::Stopped)));
    // As if it had been killed while it wrote the seventh.
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 6 * 4 * 700);
    std::fs::write(&path, [bytes, vec![1; 99]].concat()).unwrap();

    made.set(0);
    let all = at_most(usize::MAX);
    let mut recorded = Recorded::new(operator(), &path, &all).unwrap();
    assert_eq!((recorded.known(), recorded.dim()), (6, 700));
    assert_eq!(lanczos(&mut recorded, &options, &mut |_| ()).unwrap(), whole);
    assert_eq!(made.get() + 6, whole.products);
}
