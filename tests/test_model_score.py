"""Scores of pixels agree with their textbook forms, keep their invariances, and find the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from livestain_models._errors import DataError
from livestain_models.ceiling import noise_ceiling, noise_variance, repeats_noise_variance
from livestain_models.micro_ssim import fit_micro_ssim, micro_ssim, sample_field
from livestain_models.score import nrmse, pearson, psnr, ssim
from livestain_models.spectrum import ring_correlation


def scene(seed=0, shape=(256, 256), sigma=3.0, top=1000.0):
    """Blobs as optics would show them: nothing at the camera's finest frequencies."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter((rng.random(shape) > 0.995).astype(float), sigma)
    return 100 + top * blobs / blobs.max()


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    real = rng.gamma(2, 500, (64, 80))
    return real + rng.normal(0, 300, real.shape), real


def test_pearson(pair):
    assert pearson(*pair) == pytest.approx(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])
    assert pearson(*pair) == pytest.approx(stats.pearsonr(pair[0].ravel(), pair[1].ravel()).statistic)
    assert pearson(np.ones((4, 4), np.uint16), np.eye(4, dtype=np.uint16)) == 0
    assert pearson(np.full((5, 7), 0.1), np.random.default_rng(0).random((5, 7))) == 0  # 0.1 has no exact mean


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1e4, 1e4), seed=st.integers(0, 99))
def test_pearson_does_not_see_gain_and_offset(gain, offset, seed):
    a, b = np.random.default_rng(seed).random((2, 16, 12))
    assert pearson(gain * a + offset, b) == pytest.approx(pearson(a, b), abs=1e-6)
    assert pearson(-gain * a + offset, b) == pytest.approx(-pearson(a, b), abs=1e-6)
    assert pearson(a, b) == pytest.approx(pearson(b, a))


def test_ssim_is_scikit_images(pair):
    guess, real = pair
    span = real.max() - real.min()
    _, full = structural_similarity(
        guess, real, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim(guess, real) == pytest.approx(full.mean(), abs=1e-6)
    assert ssim(real, real) == pytest.approx(1)


def test_nrmse_and_psnr(pair):
    guess, real = pair
    assert nrmse(np.full(real.shape, real.mean()), real) == pytest.approx(1)
    assert nrmse(real, real) == 0
    rms = nrmse(guess, real) * real.std()
    assert rms == pytest.approx(normalized_root_mse(real, guess, normalization="min-max") * np.ptp(real))
    assert psnr(guess, real) == pytest.approx(peak_signal_noise_ratio(real, guess, data_range=np.ptp(real)))
    assert psnr(real, real) == np.inf


def test_torchmetrics_agrees(pair):
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.functional.image")
    guess, real = (torch.from_numpy(part)[None, None] for part in pair)
    span = float(pair[1].max() - pair[1].min())
    theirs = image.structural_similarity_index_measure(guess, real, data_range=span, sigma=1.5)
    assert ssim(*pair) == pytest.approx(float(theirs), abs=0.01)  # it leaves the border out
    assert psnr(*pair) == pytest.approx(float(image.peak_signal_noise_ratio(guess, real, data_range=span)), abs=1e-3)


BROKEN = {
    "another shape": (np.zeros((32, 32)), np.zeros((32, 31)), r"\(32, 32\) and \(32, 31\)"),
    "a stack": (np.zeros((2, 32, 32)), np.zeros((2, 32, 32)), "own shape"),
    "NaN": (np.full((32, 32), np.nan), np.zeros((32, 32)), "prediction holds 1024 pixels"),
    "infinity": (np.zeros((32, 32)), np.full((32, 32), np.inf), "real image holds 1024 pixels"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("score", [pearson, ssim, psnr, nrmse, lambda a, b: ring_correlation(a, b, 0.5)])
def test_what_cannot_be_compared_is_refused(case, score):
    predicted, real, message = BROKEN[case]
    with pytest.raises(DataError, match=message):
        score(predicted, real)


# MicroSSIM


def sampled(pairs):
    return [sample_field(guess, real) for guess, real in pairs]


def test_micro_ssim_finds_brightness_and_background():
    fields = sampled([(0.25 * scene(seed) + 40, scene(seed)) for seed in range(3)])
    fit = fit_micro_ssim(fields)
    assert fit.alpha == pytest.approx(4, rel=0.02)
    assert fit.background_predicted - 40 == pytest.approx(0.25 * fit.background_real, abs=0.5)
    assert [micro_ssim(field, fit) for field in fields] == pytest.approx([1, 1, 1], abs=1e-3)


@given(gain=st.floats(0.05, 20), offset=st.floats(-500, 500))
def test_micro_ssim_does_not_see_gain_and_offset_of_the_set(gain, offset):
    rng = np.random.default_rng(0)
    real = scene(shape=(64, 64))
    guess = real + rng.normal(0, 60, real.shape)
    plain, changed = (sampled([(image, real)]) for image in (guess, gain * guess + offset))
    first, second = (micro_ssim(fields[0], fit_micro_ssim(fields)) for fields in (plain, changed))
    assert second == pytest.approx(first, abs=2e-3)


def test_micro_ssim_is_ssim_where_there_is_nothing_to_fit():
    """By hand: backgrounds off, over the brightest pixel, times alpha; then SSIM for images that range to 1."""
    real, guess = scene(), scene(sigma=4.0)
    (field,) = sampled([(guess, real)])
    fit = fit_micro_ssim([field])
    ours = [
        alpha * (image - background) / fit.scale
        for alpha, image, background in (
            (fit.alpha, guess, fit.background_predicted),
            (1, real, fit.background_real),
        )
    ]
    _, full = structural_similarity(
        *ours, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert micro_ssim(field, fit) == pytest.approx(full[::2, ::2].mean(), abs=1e-4)


def test_micro_ssim_of_one_grey_value():
    (field,) = sampled([(np.zeros((40, 40)), scene(shape=(40, 40)))])
    assert 0 <= micro_ssim(field, fit_micro_ssim([field])) < 1
    with pytest.raises(DataError, match="got none"):
        fit_micro_ssim([])


# Fourier ring correlation


def test_ring_correlation_of_equals_and_strangers():
    real = np.random.default_rng(0).normal(0, 1, (128, 96))
    same = ring_correlation(real, real, 0.5)
    assert same.correlation == pytest.approx(np.ones(24))
    assert same.cutoff_per_um == pytest.approx(1.0, abs=0.03)  # Nyquist of 0.5 um pixels
    other = ring_correlation(np.random.default_rng(1).normal(0, 1, (128, 96)), real, 0.5)
    assert abs(other.mean) < 0.05
    assert ring_correlation(np.full(real.shape, 0.1), real, 0.5).cutoff_per_um == 0
    with pytest.raises(DataError, match="16 x 16"):
        ring_correlation(real[:8], real[:8], 0.5)


@pytest.mark.parametrize("cutoff_per_um", [0.3, 0.6, 0.9])
def test_the_cutoff_is_where_the_detail_ends(cutoff_per_um):
    rng = np.random.default_rng(0)
    real = rng.normal(0, 1, (256, 256))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256, 0.4)] * 2, indexing="ij"))
    known = np.fft.ifft2(np.fft.fft2(real) * (frequency < cutoff_per_um)).real
    guess = known + np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, real.shape)) * (frequency >= cutoff_per_um)).real
    assert ring_correlation(guess, real, 0.4).cutoff_per_um == pytest.approx(cutoff_per_um, abs=0.04)


@given(seed=st.integers(0, 99), gain=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_ring_correlation_is_symmetric_and_does_not_see_gain(seed, gain, offset):
    a, b = np.random.default_rng(seed).random((2, 40, 33))
    forth, back = ring_correlation(a, b, 0.3), ring_correlation(b, gain * a + offset, 0.3)
    assert forth.correlation == pytest.approx(back.correlation, abs=1e-7)
    assert np.abs(forth.correlation).max() <= 1


# Noise ceiling


@pytest.mark.parametrize("photons_per_grey", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("read_noise", [0.0, 5.0, 30.0])
def test_the_ceiling_is_what_the_clean_image_reaches(photons_per_grey, read_noise):
    clean = scene()
    rng = np.random.default_rng(1)
    real = rng.poisson(clean * photons_per_grey) / photons_per_grey + rng.normal(0, read_noise, clean.shape)
    known = np.mean(clean / photons_per_grey + read_noise**2)
    found = noise_ceiling(real)
    assert found.doubt == ""
    assert found.noise_sd**2 == pytest.approx(known, rel=0.05)
    assert found.pearson == pytest.approx(pearson(clean, real), abs=0.01)


def test_noise_from_repeats():
    rng = np.random.default_rng(0)
    clean = scene()
    exposures = np.stack([clean + rng.normal(0, 25, clean.shape) - 10 * i for i in range(3)])  # it bleaches
    variance = repeats_noise_variance(exposures)
    assert variance == pytest.approx(625, rel=0.02)
    assert noise_ceiling(exposures[0], variance).pearson == pytest.approx(pearson(clean, exposures[0]), abs=0.005)
    with pytest.raises(DataError, match="two exposures"):
        repeats_noise_variance(exposures[:1])


def noisy(sd=50.0):
    return scene() + np.random.default_rng(2).normal(0, sd, (256, 256))


DOUBTFUL = {
    "smoothed": (lambda: ndimage.gaussian_filter(noisy(), 0.7), "still falls"),
    "resampled": (lambda: ndimage.zoom(noisy(), 2, order=1), "still falls"),
    "undersampled": (lambda: scene(sigma=0.6), "still falls"),
    "sharpened": (lambda: noisy(5) - ndimage.laplace(noisy(5)), "sharpened"),
    "saturated": (lambda: np.minimum(noisy(), 300), "saturated"),
    "one grey value": (lambda: np.full((64, 64), 7), "one grey value"),
    "noise only": (lambda: np.random.default_rng(9).normal(0, 1, (257, 256)), "no signal"),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_a_ceiling_that_is_not_to_be_trusted_says_so(case):
    make, doubt = DOUBTFUL[case]
    found = noise_ceiling(make())
    assert doubt in found.doubt
    assert 0 <= found.pearson <= 1


def test_small_fields_have_no_ceiling():
    with pytest.raises(DataError, match="64 x 64"):
        noise_variance(np.zeros((63, 64)))
    small = noise_ceiling(noisy()[:40, :40])
    assert np.isnan(small.pearson)
    assert "too small" in small.doubt
    assert noise_ceiling(noisy()[:40, :40], 2500.0).pearson > 0  # known from elsewhere


@pytest.mark.parametrize("size", [64, 128, 300])
def test_honest_noise_is_seldom_doubted(size):
    doubts = [noise_variance(np.random.default_rng(seed).normal(0, 1, (size, size)))[1] for seed in range(60)]
    assert sum(map(bool, doubts)) <= 1


def test_a_real_stain_has_a_plausible_ceiling(shared_data):
    import tifffile

    real = tifffile.imread(shared_data / "ecoli" / "ds1" / "fluorescence" / "00001.tif")
    found = noise_ceiling(real)
    assert found.doubt == ""
    assert 0.8 < found.pearson < 0.97
    smooth = ndimage.gaussian_filter(real.astype(float), 2)
    assert pearson(smooth, real) < found.pearson + 0.02
