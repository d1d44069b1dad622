//! An RSA private key, because ring cannot generate one. Only these tests use it.

/// PKCS#1 as base64.
pub const RSA_KEY: &str = concat!(
    "MIIEpAIBAAKCAQEAlBRurxpS8wDpi91YpLfej+5fA1PqPwvcmCFWrqDjs9MAcFga+/+mcIveBLHnvXCGxfygL/tq",
    "+2EAQttJaF/fO4YBsMDA6kB6vgO/8EucIfgy0aIDnvwG7c+AgqT/gvBpPOvhetsuzzgIphSKtpb99Pme8hL5/vKH",
    "stIciYtAi2JwJnR5uGQHDxHBjqMEkouO/qm3DNAY8YVEXsg1XG6YfU77I0FQrPde2hu2KiULptpMwuuDdks4Iyho",
    "qLO96UlXlt2oURvwI218XyGt/4LiPrUomxQGZD422+kRCjr8EBVElyqoBWgi/xbKu7mxdQvrt0AXwZE1dj6K2CaE",
    "VNb2OQIDAQABAoIBAAU1DS1eY3GTKyNOXdaxBMtLfDm/V/dD71n+2a/if0hB18MNYamK0N0mNf1tuF2MboOEZVQe",
    "LjAURFQHUYUjJ7ejFJNcH3Ag8ZAHlA9+j2W6obSjKEP/B6B1WNUp8lLu8MjlmQmmBExTDis/ncnM9LXRe89ZxLSu",
    "JsfK3dLQn2XSAkTXq7/1AA6+tY3GiJVheJkTaM9byTA+/IJBxK2gdy7cUnPtqqAmwGQeGhxyzD/fiRrR2Ivk//Tm",
    "kbl53yfX3bKm7N6GublOLg0Z+/jY6fZZhw3E9c5vdpHxYHA1kk5vK2bHhxuHKSC0604yUYW3vTNlom9p6zQ1Dw8z",
    "LQSjqhcCgYEAyJbtZ/xV3Pxd+hCgfuMSUINEYJeTPOnZgjtgFCedQlxS10yg8Bd9wqh+uNiMHblhbgJgu/UsSW12",
    "M7KhHtgi+3G828ot6G0cB2cwaQ3P4l3wDYogAcuNKWSKFRfr9f8YLziqDupXHXjtp+13BOP2/JxDGbfu2OMKxFnY",
    "cyGgQBMCgYEAvPwtppBJO8T+5iPepv6pn1vHq4XdWUbzFNxmpk/y6Q9PXfY43JiOR2jrmo/B9uTWe8nMWD3i+JhA",
    "HLQPoEPYB80bX0C3NuM5cTKQoFPXFc5M+CQpn/yROI7SQ1mhzW6+g20GXYKp3W6hf2wvr4fzQSSCnICpfqtTv+YC",
    "tHYTsgMCgYBdSx0V/R2uT04iLTOIcHInMjZOOpFHhngcgyMXnKkeoTQCYOiFYleifp2ZuVXJyVvQP5jgMpKrgBa2",
    "ysD3SI1UpzyweONLM9wScWLpqXvji89HbNOgIh0AgHtcfijH3CJSbCdkEof79C+Mp/xwMNrB+KeYwZx8EXUDh8oN",
    "GjmfMwKBgQClFGdQCtNduVurboPMPcGvaT2GL53FoXsuqsOj3UxjlrMOcckDsOL/r7+2OIMHBqfwY7rzDcQYwO2n",
    "5QWNShYH4ntZfi9Ma7m+jpvU4MeNzbJgQz50+OtliyRSHpZ+25DhPrgDsOJugXfi1X7mBoxPR/QrfxwPgNrcUq/k",
    "MQxNPwKBgQCh1VfnBwvO8zGxDQOJnhGMESZFkE005ZeKTnFM5GyD3MZ858zAKmDjB6lvkE+6vlT4V/ZCTbYY10vw",
    "HbS/hGJv3t8G3yubLm+A4M2dYAHr3nMUXpDQ9DIlJEHcvZu9U9NBfAiPaidzKACZW6Q5J1cuxJi2WWJt14VXGNE1",
    "cYJ4pQ==",
);
