#include "ksm/permutation.h"

static uint32_t round_mix(uint32_t half, uint64_t key, unsigned round)
{
    uint64_t x = (half + key) * UINT64_C(0x9e3779b97f4a7c15) + round * UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 29;
    x *= UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(x >> 32);
}

uint32_t permutation_at(uint32_t index, uint32_t count, uint64_t key)
{
    unsigned half_bits = 1;
    while (half_bits < 16 && (UINT64_C(1) << (2 * half_bits)) < count)
        half_bits++;
    uint32_t mask = (UINT32_C(1) << half_bits) - 1;

    uint32_t x = index;
    do {
        uint32_t left = x >> half_bits, right = x & mask;
        for (unsigned round = 0; round < 4; round++) {
            uint32_t mixed = left ^ (round_mix(right, key, round) & mask);
            left = right;
            right = mixed;
        }
        x = left << half_bits | right;
    } while (x >= count);
    return x;
}
