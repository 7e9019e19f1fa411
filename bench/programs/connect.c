/* The least that a client of a resident process can do: connect, send and exit.
 *
 * usage: connect SOCKET REQUEST [wait]
 * Sends the file REQUEST to the Unix socket; with "wait" it reads the answer to its end as well.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char data[65536];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc < 3 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    int file = open(argv[2], O_RDONLY), link = socket(AF_UNIX, SOCK_STREAM, 0);
    ssize_t size = read(file, data, sizeof data);
    if (size <= 0 || connect(link, (struct sockaddr *)&address, sizeof address) != 0)
        return 1;
    if (write(link, data, (size_t)size) != size)
        return 1;
    while (argc > 3 && read(link, data, sizeof data) > 0)
        ;
    return 0;
}
