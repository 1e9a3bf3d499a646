//! Small dense linear algebra, without an allocator.

/// Solves `a x = b` for a symmetric positive definite `a` by Cholesky factorization; `b` becomes x. False when `a` is not positive
/// definite to working precision; `b` is then worthless. Only the lower triangle of `a` is read; it is overwritten.
#[must_use]
pub(crate) fn solve<const N: usize>(a: &mut [[f64; N]; N], b: &mut [f64; N]) -> bool {
    for i in 0..N {
        let scale = a[i][i];
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let rest = a[i][j] - dot;
            if j < i {
                a[i][j] = rest / a[j][j];
            } else if rest > 1e-12 * scale {
                a[i][i] = libm::sqrt(rest);
            } else {
                // NaN ends here too.
                return false;
            }
        }
    }
    for i in 0..N {
        let dot: f64 = (0..i).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i][i];
    }
    for i in (0..N).rev() {
        let dot: f64 = (i + 1..N).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i][i];
    }
    true
}

/// Adds `weight · row rowᵀ` to the lower triangle of `a` and `weight · value · row` to `b`: one observation in the normal equations.
pub(crate) fn observe<const N: usize>(
    a: &mut [[f64; N]; N],
    b: &mut [f64; N],
    row: &[f64; N],
    value: f64,
    weight: f64,
) {
    for i in 0..N {
        let w = weight * row[i];
        for j in 0..=i {
            a[i][j] += w * row[j];
        }
        b[i] += w * value;
    }
}

/// a × b.
pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// a · b.
pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_system_is_solved() {
        let mut a = [[4.0, 0.0, 0.0], [2.0, 5.0, 0.0], [1.0, 3.0, 6.0]];
        // a · (1, -2, 3) with the upper triangle mirrored.
        let mut b = [4.0 - 4.0 + 3.0, 2.0 - 10.0 + 9.0, 1.0 - 6.0 + 18.0];
        assert!(solve(&mut a, &mut b));
        for (x, expected) in b.iter().zip([1.0, -2.0, 3.0]) {
            assert!((x - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn what_has_no_single_solution_is_refused() {
        let (mut singular, mut nan) = ([[1.0, 0.0], [1.0, 1.0]], [[f64::NAN, 0.0], [0.0, 1.0]]);
        assert!(!solve(&mut singular, &mut [1.0, 2.0]));
        assert!(!solve(&mut nan, &mut [1.0, 2.0]));
    }

    #[test]
    fn observations_add_up_to_least_squares() {
        // y = 2x + 1 with one observation that counts nothing.
        let (mut a, mut b) = ([[0.0; 2]; 2], [0.0; 2]);
        for (x, y, w) in [(0.0, 1.0, 1.0), (1.0, 3.0, 2.0), (2.0, 5.0, 0.5), (1.0, 99.0, 0.0)] {
            observe(&mut a, &mut b, &[x, 1.0], y, w);
        }
        assert!(solve(&mut a, &mut b));
        assert!((b[0] - 2.0).abs() < 1e-12 && (b[1] - 1.0).abs() < 1e-12);
    }
}
