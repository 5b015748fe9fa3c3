import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;

/** Leaks what it accepts: for tests/live/hunt.rs. Says "ready", and ends when its standard input does. */
public class Leak {
    static Socket takeOne(ServerSocket listener) throws Exception {
        return listener.accept();
    }

    public static void main(String[] args) throws Exception {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]), 16, InetAddress.getLoopbackAddress());
        Thread server = new Thread(() -> {
            List<Socket> taken = new ArrayList<>();
            try {
                while (true) {
                    taken.add(takeOne(listener));
                }
            } catch (Exception end) {
                System.exit(1);
            }
        });
        server.setDaemon(true);
        server.start();
        System.out.println("ready");
        while (System.in.read() >= 0) {
        }
    }
}
