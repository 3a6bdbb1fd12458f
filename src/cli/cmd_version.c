/* ingot version - version, processor and instruction sets */
#include "cli/cli.h"

enum status cmd_version(int argc, char **argv, struct error *err)
{
    bool json = false;
    const struct cli_option options[] = {{"json", 0, CLI_FLAG, &json, NULL, "as one JSON object"}};
    const struct cli_spec spec = {"ingot version [--json]",
                                  "Prints the version, the processor and the instruction sets it offers.",
                                  "  ingot version --json",
                                  options,
                                  1,
                                  0,
                                  0};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    struct buf out = {0};
    if (!json) {
        buf_printf(&out, "ingot %s (%s), numerics %d, %s on %s\n", INGOT_VERSION, INGOT_COMMIT, NUMERICS_VERSION,
                   kernels_isa(), kernels_cpu_name());
    } else {
        struct json_writer w;
        json_writer_init(&w, &out);
        json_begin_object(&w);
        json_put_str(&w, "version", str_of(INGOT_VERSION));
        json_put_str(&w, "commit", str_of(INGOT_COMMIT));
        json_put_int(&w, "numerics_version", NUMERICS_VERSION);
        json_put_str(&w, "cpu", str_of(kernels_cpu_name()));
        json_put_str(&w, "isa", str_of(kernels_isa()));
        json_key(&w, "isa_available");
        json_begin_array(&w);
        for (int i = 0; kernels_isa_list(i); i++)
            if (kernels_isa_available(kernels_isa_list(i)))
                json_write_str(&w, str_of(kernels_isa_list(i)));
        json_end_array(&w);
        json_end_object(&w);
        buf_append_char(&out, '\n');
    }
    enum status st = cli_print(&out, err);
    buf_free(&out);
    return st;
}
