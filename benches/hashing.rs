//! What checking a piece costs on this machine: SHA-1 of one stream. `cargo bench --bench hashing`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha1::{Digest, Sha1};

fn sha1(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sha1");
    for len in [16 << 10, 1 << 20] {
        let piece = vec![0x5a_u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{} KiB", len >> 10), |bencher| {
            bencher.iter(|| Sha1::digest(black_box(&piece)));
        });
    }
    group.finish();
}

criterion_group!(benches, sha1);
criterion_main!(benches);
