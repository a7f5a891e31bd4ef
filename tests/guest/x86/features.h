#ifndef GUEST_FEATURES_H
#define GUEST_FEATURES_H

void test_features(void); /* features.c: CPUID */

#endif
