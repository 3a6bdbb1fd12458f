/* fuzz_grammar_schema - any bytes as a source: refused, or a grammar whose masks are what accepting the bytes says, and
 * that can always go on. */
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_grammar(GRAMMAR_SCHEMA, data, size);
    return 0;
}
