#include "daemon/ballastctl/options.h"

#include <string.h>

/* -f is --file, for commands that have it. Its row, or -1. */
static int file_option(const struct option *options)
{
    for (int i = 0; options[i].name; i++)
        if (strcmp(options[i].name, "file") == 0)
            return i;
    return -1;
}

int options_next(int argc, char **argv, const struct option *options, int *index)
{
    opterr = 0;
    int found = getopt_long(argc, argv, ":f:", options, index);
    if (found == 'f') {
        int row = file_option(options);
        if (index)
            *index = row;
        found = row >= 0 ? options[row].val : '?';
    }
    if (found == ':') {
        ctl_usage(argv[0], "%s needs a value", argv[optind - 1]);
        return 0;
    }
    if (found == '?') {
        ctl_usage(argv[0], "no option '%s'", argv[optind - 1]);
        return 0;
    }
    return found;
}

int options_end(int argc, char **argv, int least, int most)
{
    int left = argc - optind;
    if (left < least)
        return ctl_usage(argv[0], "an argument is missing");
    if (left > most)
        return ctl_usage(argv[0], "one argument too many: '%s'", argv[optind + most]);
    return CTL_OK;
}

int options_none(int argc, char **argv, int least, int most)
{
    static const struct option none[] = {{0}};
    if (options_next(argc, argv, none, NULL) == 0)
        return CTL_USAGE;
    return options_end(argc, argv, least, most);
}
