# Oracle values of internal/stats from R. Run from testdata:
#   Rscript oracle.R > oracle_r.json
# Base R only (package stats), no random numbers: all inputs stand below.
num <- function(x) formatC(x, digits = 17, format = "g")
arr <- function(x) paste0("[", paste(num(x), collapse = ","), "]")
obj <- function(...) { l <- list(...); paste0("{", paste0('"', names(l), '":', unlist(l), collapse = ","), "}") }
lst <- function(x) paste0("[", paste(x, collapse = ",\n  "), "]")

samples <- list(
  c(0.031, -0.012, 0.044, 0.027, 0.051, 0.009),
  c(0.31, 0.12, -0.05, 0.22, 0.47, 0.08, 0.19),
  c(1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30) - c(0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29),
  c(-0.8, 1.9, 0.35, 2.21, -1.13, 0.02, 0.77, 1.41, -0.29, 0.93),
  sin(1:15 * 1.7) + 0.4, sin(1:20 * 2.3) * 3 - 0.9, sin((1:31)^1.5) + 0.21, cos((1:50)^1.3) * 2 + 0.33)
signed <- lapply(samples, function(d) {
  w <- suppressWarnings(wilcox.test(d, exact = TRUE, conf.int = TRUE, conf.level = 0.95))
  obj(d = arr(d), estimate = num(median(outer(d, d, "+")[lower.tri(diag(length(d)), TRUE)] / 2)),
      lo = num(w$conf.int[1]), hi = num(w$conf.int[2]), p = num(w$p.value))
})
# sign-flip: every sign pattern, by brute force
flips <- lapply(c(samples[1:5], list(c(1, 1, -1, 0, 2, 2, -1, 3), c(0, 0, 0), c(2, 2, 2, 2, 2, 2))), function(d) {
  n <- length(d); s <- as.matrix(expand.grid(rep(list(c(-1, 1)), n)))
  obj(d = arr(d), p = num(mean(abs(s %*% d) >= abs(sum(d)) - 1e-12)))
})
two <- list(
  list(c(0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46), c(1.15, 0.88, 0.90, 0.74, 1.21)),
  list(c(12.1, 13.4, 11.8, 12.9), c(14.2, 13.9, 15.1, 14.8)),
  list(sin(1:25 * 1.7), sin(1:30 * 2.9) + 0.4))
unpaired <- lapply(two, function(t) {
  w <- wilcox.test(t[[2]], t[[1]], exact = TRUE, conf.int = TRUE, conf.level = 0.95)
  obj(a = arr(t[[1]]), b = arr(t[[2]]), estimate = num(w$estimate), lo = num(w$conf.int[1]), hi = num(w$conf.int[2]), p = num(w$p.value))
})
q <- c(0.62, 3.1, 0.9, 2.2, 1.5, 7.7, 4.4, 5.0, 0.1, 8.8, 6.1, 2.9)
quant <- lapply(c(0.25, 0.5, 1/3, 0.58), function(p) obj(p = num(p), value = num(quantile(q, p, type = 7, names = FALSE))))
# rank interval of the median: largest k with 1-2*pbinom(k-1,n,.5) >= .95
ranks <- lapply(c(5, 6, 8, 10, 15, 20, 50, 200, 1000, 5000), function(n) {
  k <- 0; while (1 - 2 * pbinom(k, n, 0.5) >= 0.95) k <- k + 1
  obj(n = num(n), k = num(k), level = num(if (k > 0) 1 - 2 * pbinom(k - 1, n, 0.5) else 0))
})
ps <- list(c(0.01, 0.04, 0.03, 0.005), c(0.5, 0.5, 0.001), c(1, 0.2), 0.03, c(0.02, 0.02, 0.02))
holm <- lapply(ps, function(p) obj(p = arr(p), adjusted = arr(p.adjust(p, "holm"))))
series <- list(sin(1:40 * 0.3), c(5, 5.5, 5.1, 6, 6.2, 5.9, 5.2, 5, 4.8, 5.3), c(1, -1, 1, -1, 1, -1, 1.5))
ac <- lapply(series, function(x) obj(x = arr(x), rho = num(acf(x, lag.max = 1, plot = FALSE)$acf[2])))
psr <- lapply(c(6, 10, 20, 50), function(n) obj(n = num(n), q = num(qsignrank(0.025, n)), p = num(psignrank(floor(n * (n + 1) / 6), n))))
# t-quantile part of the minimal detectable effect
tmde <- lapply(c(11, 15, 20, 40), function(n) obj(n = num(n), factor = num((qt(0.975, n - 1) + qt(0.8, n - 1)) / sqrt(n))))
# weighted line on block means, weights 1/median^2, and t-intervals over per-block fits
bytes <- c(4096, 65536, 1048576, 16777216)
times <- rbind(c(25101, 83020, 1051000, 17350000), c(23890, 87410, 1101000, 16500000), c(24650, 84870, 1069000, 16810000),
               c(24200, 86230, 1078000, 17010000), c(24990, 85150, 1043000, 16920000))
times2 <- rbind(c(61100, 68020, 171000, 1735000), c(60300, 66410, 166000, 1770000), c(59650, 67870, 164000, 1701000),
                c(62200, 65230, 169000, 1741000), c(60990, 66150, 163500, 1722000))
fit <- function(times) {
  w <- 1 / apply(times, 2, median)^2
  per <- t(apply(times, 1, function(y) coef(lm(y ~ bytes, weights = w))))
  all <- coef(lm(colMeans(times) ~ bytes, weights = w))
  ci <- function(x) mean(x) + c(-1, 1) * qt(0.975, length(x) - 1) * sd(x) / sqrt(length(x))
  list(per = per, json = obj(times = paste0("[", paste(apply(times, 1, arr), collapse = ","), "]"),
      alpha = num(all[1]), per_byte = num(all[2]), alpha_ci = arr(ci(per[, 1])), per_byte_ci = arr(ci(per[, 2]))))
}
fa <- fit(times); fb <- fit(times2)
# Fieller's set by brute force: scan for the sizes at which t.test does not reject D = 0
D <- function(n) (fa$per[, 1] - fb$per[, 1]) + n * (fa$per[, 2] - fb$per[, 2])
g <- function(n) t.test(D(n))$p.value - 0.05
est <- uniroot(function(n) mean(D(n)), c(1000, 1e6), tol = 1e-9)$root
cross <- obj(estimate = num(est), lo = num(uniroot(g, c(1000, est), tol = 1e-9)$root), hi = num(uniroot(g, c(est, 1e6), tol = 1e-9)$root))
cat(obj(signed_rank = lst(signed), sign_flip = lst(flips), rank_sum = lst(unpaired), quantile_sample = arr(q), quantile = lst(quant),
        median_rank = lst(ranks), holm = lst(holm), acf = lst(ac), signrank_null = lst(psr), t_mde = lst(tmde),
        cost_bytes = arr(bytes), cost_a = fa$json, cost_b = fb$json, crossover = cross), "\n")
