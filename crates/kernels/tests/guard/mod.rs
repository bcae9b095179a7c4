//! Kernels on slices between pages that may not be touched: what reads or writes beyond its slices does not live.
//!
//! Results are compared with those on ordinary memory, which also shows that they do not depend on alignment.

use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};

use lapidary_kernels::adamw::{AdamW, adamw_update};
use lapidary_kernels::attention::{AttentionShape, attention, attention_backward};
use lapidary_kernels::cross_entropy::cross_entropy;
use lapidary_kernels::dropout::dropout;
use lapidary_kernels::embedding::{gather, scatter_add};
use lapidary_kernels::fake_quantize::{fake_quantize, fake_quantize_backward, fake_quantize_codes, fake_quantize_rows};
use lapidary_kernels::gelu::{gelu, gelu_backward};
use lapidary_kernels::layer_norm::{layer_norm, layer_norm_backward};
use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight, sum_rows};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::moments::rounding_moments;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::reduce::sum_of_squares;

use crate::support::random;

/// Where a slice meets a page that may not be touched.
#[derive(Clone, Copy, Debug)]
enum Edge {
    /// The page before it.
    Start,
    /// The page after it.
    End,
}

/// A slice with a guard page at one of its edges.
struct Guarded<T> {
    mapping: NonNull<libc::c_void>,
    bytes: usize,
    slice: NonNull<T>,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    fn new(values: &[T], edge: Edge) -> Self {
        // SAFETY: it asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size");
        let size = size_of_val(values);
        let room = size.next_multiple_of(page).max(page);
        let bytes = room + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: new memory, wherever the system likes; without access, until some of it is given below.
        let mapping = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        assert!(mapping != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let start = match edge {
            Edge::Start => page,
            Edge::End => page + room - size,
        };
        // SAFETY: all pages of the mapping but the first and the last may be used, and `size` bytes from `start` are
        // on them. The alignment is right, since pages and the size are multiples of it.
        unsafe {
            let answer = libc::mprotect(mapping.byte_add(page), room, libc::PROT_READ | libc::PROT_WRITE);
            assert!(answer == 0, "{}", std::io::Error::last_os_error());
            let slice = mapping.byte_add(start).cast::<T>();
            slice.copy_from_nonoverlapping(values.as_ptr(), values.len());
            let [mapping, slice] = [mapping, slice.cast()].map(|at| NonNull::new(at).expect("mapped memory"));
            Self { mapping, bytes, slice: slice.cast(), len: values.len() }
        }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nothing borrows any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.bytes) };
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` has written so many values there.
        unsafe { std::slice::from_raw_parts(self.slice.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.slice.as_ptr(), self.len) }
    }
}

/// Runs `kernel(inputs, outputs)`, outputs of the lengths `lens`, on ordinary and on guarded memory.
#[track_caller]
fn check<const I: usize, const O: usize>(
    what: &str,
    inputs: [&[f32]; I],
    lens: [usize; O],
    kernel: impl Fn([&[f32]; I], [&mut [f32]; O]),
) {
    let mut expected = lens.map(|len| vec![0.5f32; len]);
    kernel(inputs, expected.each_mut().map(|output| &mut output[..]));
    for edge in [Edge::Start, Edge::End] {
        let guarded = inputs.map(|input| Guarded::new(input, edge));
        let mut outputs = lens.map(|len| Guarded::new(&vec![0.5f32; len], edge));
        kernel(guarded.each_ref().map(|input| &input[..]), outputs.each_mut().map(|output| &mut output[..]));
        for (output, expected) in outputs.iter().zip(&expected) {
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(output) == bits(expected), "{what} at the {edge:?} of its memory");
        }
    }
}

#[test]
fn a_touch_beyond_the_edge_would_be_noticed() {
    let guarded = Guarded::new(&[1.0f32; 5], Edge::End);
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    assert!((guarded.as_ptr() as usize + 20).is_multiple_of(page));
    let guarded = Guarded::new(&[1.0f32; 5], Edge::Start);
    assert!((guarded.as_ptr() as usize).is_multiple_of(page));
}

/// Odd sizes: of one tile and less, of several blocks of the depth, of more rows than a task has.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 37, 33),
    (3, 17, 16),
    (7, 31, 47),
    (16, 32, 32),
    (33, 65, 31),
    (5, 643, 19),
    (101, 34, 61),
    (4, 1301, 70),
];

#[test]
fn linear_stays_inside() {
    for (n, input, output) in SHAPES {
        let (x, w, dy) = (random(n * input, 1), random(output * input, 2), random(n * output, 3));
        let bias = random(output, 4);
        for precision in [Precision::F32, Precision::Bf16] {
            let what = |kernel: &str| format!("{kernel} of {n} rows, {input} to {output} in {precision:?}");
            check(&what("linear"), [&x, &w], [n * output], |[x, w], [y]| {
                linear(x, w, None, None, n, input, output, precision, y);
            });
            check(&what("linear with terms"), [&x, &w, &bias, &dy], [n * output], |[x, w, bias, residual], [y]| {
                linear(x, w, Some(bias), Some(residual), n, input, output, precision, y);
            });
            check(&what("linear_backward_input"), [&dy, &w], [n * input], |[dy, w], [dx]| {
                linear_backward_input(dy, w, n, input, output, precision, dx);
            });
            check(&what("linear_backward_weight"), [&dy, &x], [output * input], |[dy, x], [dw]| {
                linear_backward_weight(dy, x, n, input, output, precision, dw);
            });
            check(&what("packed"), [&x, &w, &bias, &dy], [n * output], |[x, w, bias, residual], [y]| {
                let packed = PackedLinear::new(w, output, input, precision);
                packed.forward(x, n, Some(bias), Some(residual), y);
            });
            check(&what("packed by panels"), [&x, &w], [n * output.min(16)], |[x, w], [y]| {
                PackedLinear::new(w, output, input, precision).forward_panels(x, n, 0..1, None, None, y);
            });
        }
        check("sum_rows", [&dy], [output], |[dy], [db]| sum_rows(dy, n, output, db));
    }
}

#[test]
fn elementwise_kernels_stay_inside() {
    for n in [1, 2, 15, 16, 17, 100, 1027] {
        let (x, dy) = (random(n, 1), random(n, 2));
        check("gelu", [&x], [n], |[x], [y]| gelu(x, y));
        check("gelu_backward", [&x, &dy], [n], |[x, dy], [dx]| gelu_backward(x, dy, dx));
        check("dropout", [&x], [n], |[x], [y]| dropout(x, 0.3, 1, 2, 3, y));
        check("adamw_update", [&dy], [n, n, n], |[grad], [param, m, v]| {
            let settings =
                AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 2, grad_scale: 0.5 };
            adamw_update(&settings, param, grad, m, v);
        });
        check("sum_of_squares", [&x], [1], |[x], [y]| y[0] = sum_of_squares(x) as f32);
        check("rounding_moments", [&x], [3], |[x], [y]| {
            y.copy_from_slice(&rounding_moments(x, 0.1, -3.0, 4.0).map(|moment| moment as f32));
        });
    }
}

#[test]
fn kernels_over_rows_stay_inside() {
    for (n, width) in [(1, 1), (3, 17), (5, 33), (2, 300), (70, 7)] {
        let [x, residual, dy] = [1, 2, 3].map(|seed| random(n * width, seed));
        let (gamma, beta) = (random(width, 4), random(width, 5));
        check("layer_norm", [&x, &residual, &gamma, &beta], [n * width], |[x, residual, gamma, beta], [y]| {
            layer_norm(x, Some(residual), gamma, beta, 1e-5, y);
        });
        let lens = [n * width, width, width];
        check("layer_norm_backward", [&x, &residual, &gamma, &dy], lens, |[x, residual, gamma, dy], [dx, dg, db]| {
            layer_norm_backward(x, Some(residual), gamma, 1e-5, dy, dx, dg, db);
        });
        let targets: Vec<i64> = (0..n).map(|i| (i * 7 % width) as i64).collect();
        check("cross_entropy", [&x], [n * width, 1], |[logits], [dlogits, loss]| {
            loss[0] = cross_entropy(logits, &targets, width, 3.0, Some(dlogits)).expect("classes") as f32;
            let alone = cross_entropy(logits, &targets, width, 3.0, None).expect("classes");
            assert!((alone as f32 - loss[0]).abs() < 1e-5 * loss[0].abs().max(1.0));
        });
        let ids: Vec<u32> = (0..n as u32).rev().collect();
        check("gather", [&x], [n * width], |[table], [out]| gather(table, width, &ids, out));
        check("scatter_add", [&dy], [n * width], |[dy], [dtable]| scatter_add(dy, width, &ids, dtable));

        let (scales, zeros) = (vec![0.2; n], vec![7.0; n]);
        check("fake_quantize", [&x, &scales, &zeros], [n * width], |[w, scales, zeros], [y]| {
            fake_quantize(w, n, width, scales, zeros, 4, y);
            for edge in [Edge::Start, Edge::End] {
                let mut codes = Guarded::new(&vec![0u8; n * width], edge);
                fake_quantize_codes(w, n, width, scales, zeros, 4, &mut codes);
            }
        });
        let lens = [n * width, n];
        check("fake_quantize_backward", [&x, &scales, &zeros, &dy], lens, |[w, scales, zeros, dy], [dw, ds]| {
            fake_quantize_backward(w, n, width, scales, zeros, 4, dy, dw, ds);
        });
        check("fake_quantize_rows", [&x], [n * width], |[x], [y]| fake_quantize_rows(x, width, 8, y));
    }
}

#[test]
fn attention_stays_inside() {
    for (rows, length, heads, head_width) in [(1, 1, 1, 1), (2, 13, 3, 5), (1, 50, 2, 17), (2, 33, 1, 16)] {
        let shape = AttentionShape { rows, length, heads, head_width };
        let size = rows * length * heads * head_width;
        let [q, k, v, dout] = [1, 2, 3, 4].map(|seed| random(size, seed));
        for mask in [Mask::full(), Mask::causal()] {
            check("attention", [&q, &k, &v], [size], |[q, k, v], [out]| attention(q, k, v, shape, &mask, out));
            check("attention_backward", [&q, &k, &v, &dout], [size; 3], |[q, k, v, dout], [dq, dk, dv]| {
                attention_backward(q, k, v, dout, shape, &mask, dq, dk, dv);
            });
        }
    }
}
